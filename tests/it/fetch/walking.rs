//! Walks that look for their own end.

use hyper::Response;

use super::command::{Setting, lines, number, pages, status};

#[tokio::test]
async fn a_walk_ends_at_the_first_empty_page() {
    for empty in [r#"{"entities":[]}"#, ""] {
        let upstream = pages(move |page, _| {
            let code = if empty.is_empty() { 204 } else { 200 };
            (page > 9).then(|| Response::builder().status(code).body(empty.into()).unwrap())
        })
        .await;
        let setting = Setting::new(upstream.address, "");
        let ended = setting.fetch("items?page={1..}", &["--until-empty", "--concurrency", "3"]).await;
        assert_eq!((ended.code, ended.output), (Some(0), lines(1..=9)), "{}", ended.error);
        assert!(ended.error.starts_with("10 pages, 27 entities"), "{}", ended.error);
        assert!(upstream.seen().iter().all(|seen| number(seen) <= 12), "two are asked for ahead");
    }
}

#[tokio::test]
async fn each_series_has_an_end_of_its_own() {
    let upstream = crate::support::stub_upstream::StubUpstream::answering(|seen| {
        let last = if seen.target.contains("voice") { 2 } else { 1 };
        let entities = if number(seen) > last { "" } else { r#""x""# };
        Response::new(format!(r#"{{"data":{{"items":[{entities}]}}}}"#).into())
    })
    .await;
    let setting = Setting::new(upstream.address, "");
    let pages = "items?channel={voice,chat}&page={01..50}";
    let ended = setting.fetch(pages, &["--until-empty", "--entities", "data.items", "--concurrency", "1"]).await;
    assert_eq!((ended.code, ended.output.as_str()), (Some(0), "\"x\"\n\"x\"\n\"x\"\n"), "{}", ended.error);
    let seen: Vec<String> = upstream.seen().into_iter().map(|seen| seen.target.replace("/api/items?channel=", "")).collect();
    assert_eq!(seen, ["voice&page=01", "voice&page=02", "voice&page=03", "chat&page=01", "chat&page=02"]);
}

#[tokio::test]
async fn a_walk_that_finds_no_page_at_all_gives_up() {
    let upstream = pages(|page, _| (page > 2).then(|| status(404, None))).await;
    let setting = Setting::new(upstream.address, "");
    let ended = setting.fetch("items?page={1..}", &["--until-empty"]).await;
    assert_eq!((ended.code, ended.output), (Some(1), lines(1..=2)));
    assert_eq!(ended.error.matches("404 Not Found").count(), 5, "{}", ended.error);
    assert!(ended.error.contains("cxgate: too many pages failed; the rest was not asked for\n"), "{}", ended.error);
    assert!(upstream.seen().len() < 12);
}
