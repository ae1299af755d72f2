//! Pages that fail, and what is said of them.

use hyper::Response;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use super::command::{Setting, ended, lines, number, pages, status};
use crate::support::{raw_upstream::RawUpstream, stub_upstream::StubUpstream, token_server::TokenServer};

#[tokio::test]
async fn a_page_that_stays_500_is_named_and_the_others_are_whole() {
    let upstream = pages(|page, _| (page == 7).then(|| status(500, None))).await;
    let setting = Setting::new(upstream.address, "");
    let ended = setting.fetch("items?api_key=hunter2&page={1..12}", &[]).await;
    assert_eq!((ended.code, ended.output), (Some(1), lines((1..=12).filter(|page| *page != 7))));
    let url = setting.url("items?api_key=[redacted]&page=7");
    let named = format!("cxgate: {url}: 500 Internal Server Error after 4 tries\n");
    assert!(
        ended.error.starts_with(&named)
            && ended.error.contains("\n11 pages, 33 entities, 1 failed, 3 retries, 0 refusals in "),
        "{}",
        ended.error
    );
    assert!(ended.error.lines().count() == 3 && !ended.error.contains("hunter2"), "{}", ended.error);
    assert_eq!(upstream.seen().iter().filter(|seen| number(seen) == 7).count(), 4);
    let quiet = setting.fetch("items?page={6..8}", &["-q"]).await;
    assert_eq!(quiet.error.lines().count(), 1, "{}", quiet.error);
}

#[tokio::test]
async fn a_page_that_is_none_says_why() {
    let upstream = StubUpstream::answering(|seen| {
        let body = match number(seen) {
            1 => "<html>private</html>".to_owned(),
            2 => r#"{"items":[]}"#.to_owned(),
            3 => r#"{"entities":{"private":1}}"#.to_owned(),
            4 => format!(r#"{{"entities":["{}"]}}"#, "x".repeat(2000)),
            5 => return status(302, None),
            _ => r#"{"entities":[1]}"#.to_owned(),
        };
        Response::new(body.into())
    })
    .await;
    let setting = Setting::new(upstream.address, "");
    let ended = setting.fetch("items?page={1..6}", &["--max-page-bytes", "1000", "--quiet"]).await;
    assert_eq!((ended.code, ended.output.as_str()), (Some(1), "1\n"));
    let reasons: Vec<&str> = ended.error.lines().map(|line| line.split_once("page=").unwrap().1).collect();
    let expected = [
        "1: it is not JSON (line 1, column 1)",
        "2: it has no \"entities\"",
        "3: its \"entities\" is no list",
        "4: it is larger than 1000 bytes (--max-page-bytes)",
        "5: 302 Found",
    ];
    assert_eq!(reasons, expected);
    assert_eq!(upstream.seen().len(), 6, "none of these is tried again");
}

#[tokio::test]
async fn a_page_that_breaks_off_is_tried_again() {
    let upstream = RawUpstream::start(|number, mut connection| async move {
        let body = r#"{"entities":[1]}"#;
        let length = if number == 0 { body.len() + 10 } else { body.len() };
        while connection.request().await.is_some() {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
            connection.stream.write_all(head.as_bytes()).await.unwrap();
            if number == 0 {
                return;
            }
        }
    })
    .await;
    let setting = Setting::new(upstream.address(), "");
    let ended = setting.fetch("items", &[]).await;
    assert_eq!((ended.code, ended.output.as_str()), (Some(0), "1\n"), "{}", ended.error);
    assert!(ended.error.contains("1 retries"), "{}", ended.error);
}

#[tokio::test]
async fn pages_are_asked_for_with_the_routes_credentials_and_by_a_client_that_can_be_named() {
    let (upstream, tokens) = (pages(|_, _| None).await, TokenServer::start(3600).await);
    let more = format!(
        "credentials = \"oauth\"\n[oauth.oauth]\ntoken_url = \"http://{}/token\"\n\
         grant = \"client_credentials\"\nclient_id = \"cxgate\"\nclient_secret = \"hunter2\"\n",
        tokens.stub.address
    );
    let setting = Setting::new(upstream.address, &more);
    for (arguments, client) in
        [(&["--header", "x-tenant: 42"][..], "cxgate-fetch"), (&["-H", "X-Client-Id: me", "-H", "x-tenant: 42"], "me")]
    {
        let ended = setting.fetch("items?page=1", arguments).await;
        assert_eq!((ended.code, ended.output), (Some(0), lines([1])), "{}", ended.error);
        let seen = upstream.seen().pop().unwrap();
        assert_eq!(seen.headers["x-client-id"], client);
        assert_eq!(seen.headers["x-tenant"], "42");
        assert_eq!(seen.headers["accept"], "application/json");
        assert_eq!(seen.headers["host"], upstream.address.to_string());
        assert!(seen.headers["authorization"].to_str().unwrap().starts_with("Bearer token-"));
    }
}

#[tokio::test]
async fn a_reader_that_has_had_enough_is_no_failure() {
    let upstream = StubUpstream::answering(|_| {
        let entities = vec![r#""xxxxxxxxxxxxxxxx""#; 10_000].join(",");
        Response::new(format!(r#"{{"entities":[{entities}]}}"#).into())
    })
    .await;
    let setting = Setting::new(upstream.address, "");
    let mut process = setting.command("items?page={1..1000}", &[]).spawn().unwrap();
    let mut reader = BufReader::new(process.stdout.take().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).await.unwrap();
    drop(reader);
    let (mut error, mut pipe) = (String::new(), process.stderr.take().unwrap());
    pipe.read_to_string(&mut error).await.unwrap();
    let code = process.wait().await.unwrap().code();
    assert_eq!((code, line.as_str(), error.as_str()), (Some(0), "\"xxxxxxxxxxxxxxxx\"\n", ""));
    assert!(upstream.seen().len() < 100);
}

#[tokio::test]
async fn a_command_line_no_page_can_come_of_says_why() {
    let upstream = pages(|_, _| None).await;
    let setting = Setting::new(upstream.address, "");
    let foreign = |url: &str| {
        let mut command = setting.command("items?page=1", &[]);
        command.arg(url);
        command
    };
    let named = format!(
        "its path belongs to route `chat`, whose upstream is http://{}, not https://elsewhere.example",
        upstream.address
    );
    for (command, code, expected) in [
        (foreign("https://elsewhere.example/api/items"), 2, named.as_str()),
        (foreign(&format!("http://{}/other", upstream.address)), 2, "no route of the configuration takes it (no_route)"),
        (foreign("elsewhere/api"), 2, "`elsewhere/api` is no URL like https://host/path"),
        (setting.command("items?page={1..", &[]), 2, "a `{` without its `}`"),
        (setting.command("items?page={3..1}", &[]), 2, "{3..1} counts down: write the smaller number first"),
        (setting.command("items?page={1..}", &[]), 2, "a range without end needs --until-empty"),
        (setting.command("items", &["--header", "content-length: 3"]), 2, "this field is set by cxgate itself"),
        (setting.command("items", &["--entities", "a..b"]), 2, "names separated by dots were expected"),
        (setting.command("items", &["--json", "--quiet"]), 2, "cannot be used with"),
        (setting.command("items", &["--config", "missing.toml"]), 78, "missing.toml"),
        (setting.command("items", &["-o", "missing/file"]), 1, "-o missing/file"),
    ] {
        let ended = ended(command).await;
        assert_eq!((ended.code, ended.output.as_str()), (Some(code), ""), "{expected}: {}", ended.error);
        assert!(ended.error.contains(expected), "{expected} is not in {}", ended.error);
    }
    assert!(upstream.seen().is_empty());
}
