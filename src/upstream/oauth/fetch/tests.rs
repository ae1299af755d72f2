//! What is asked, byte for byte, and what is believed.

use super::*;
use crate::config::Secret;

fn client(client_authentication: ClientAuthentication) -> OAuthClient {
    OAuthClient {
        client_id: "cx gate@x".into(),
        client_secret: Secret::new("s&c=r+t/é"),
        client_authentication,
        scope: Some("a:b c".into()),
    }
}

fn key() -> AccessKey {
    AccessKey { username: "KEY".into(), password: Secret::new(r#"p"w"#) }
}

async fn asked(grant: &Grant) -> (String, String, String) {
    let (head, body) = request(grant, "/auth/token").unwrap().into_parts();
    assert_eq!((head.method.as_str(), head.uri.to_string().as_str()), ("POST", "/auth/token"));
    let field = |name| head.headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let body = body.collect().await.unwrap().to_bytes();
    (field(CONTENT_TYPE), field(AUTHORIZATION), String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn each_grant_shows_what_it_has_in_its_own_form() {
    const FORM_TYPE: &str = "application/x-www-form-urlencoded";
    let secret = "client_id=cx%20gate%40x&client_secret=s%26c%3Dr%2Bt%2F%C3%A9";
    let in_body = asked(&Grant::ClientCredentials(client(ClientAuthentication::Body))).await;
    let form = format!("grant_type=client_credentials&{secret}&scope=a%3Ab%20c");
    assert_eq!(in_body, (FORM_TYPE.into(), String::new(), form));

    let (_, authorization, form) = asked(&Grant::ClientCredentials(client(ClientAuthentication::Basic))).await;
    let pair = BASE64_STANDARD.decode(authorization.strip_prefix("Basic ").unwrap()).unwrap();
    assert_eq!(pair, b"cx%20gate%40x:s%26c%3Dr%2Bt%2F%C3%A9");
    assert_eq!(form, "grant_type=client_credentials&scope=a%3Ab%20c");

    let (_, _, form) = asked(&Grant::Password { client: client(ClientAuthentication::Body), key: key() }).await;
    assert_eq!(form, format!("grant_type=password&username=KEY&password=p%22w&{secret}&scope=a%3Ab%20c"));

    let json = asked(&Grant::AccessKey(key())).await;
    let body = r#"{"accessKeyId":"KEY","accessKeySecret":"p\"w"}"#;
    assert_eq!(json, ("application/json".into(), String::new(), body.into()));
}

#[test]
fn an_answer_counts_only_if_it_is_whole_and_strict() {
    let lifetime = |body: &str| parse(body.as_bytes()).map(|(_, lifetime)| lifetime.map(|lifetime| lifetime.as_secs()));
    assert_eq!(lifetime(r#"{"access_token":"t","token_type":"BEARER","expires_in":3600,"more":[]}"#), Some(Some(3600)));
    assert_eq!(lifetime(r#"{"access_token":"t"}"#), Some(None));
    assert_eq!(lifetime(r#"{"access_token":"t","expires_in":1e300}"#), Some(Some(30 * 86_400)));
    assert_eq!(parse(br#"{"access_token":"a.b-c"}"#).unwrap().0, "Bearer a.b-c");
    let long = format!(r#"{{"access_token":"{}"}}"#, "t".repeat(MAX_TOKEN_BYTES + 1));
    for bad in [
        "",
        "[]",
        "null",
        r#"{"access_token":""}"#,
        r#"{"access_token":"a b"}"#,
        r#"{"access_token":"a\r\nx: y"}"#,
        r#"{"access_token":"é"}"#,
        r#"{"access_token":7}"#,
        r#"{"access_token":"t","access_token":"u"}"#,
        r#"{"access_token":"t","token_type":"mac"}"#,
        r#"{"access_token":"t","expires_in":0}"#,
        r#"{"access_token":"t","expires_in":-1}"#,
        r#"{"access_token":"t","expires_in":"3600"}"#,
        r#"{"error":"invalid_client"}"#,
        &long,
    ] {
        assert_eq!(lifetime(bad), None, "{bad}");
    }
}

#[test]
fn what_was_granted_is_not_printed() {
    let (authorization, _) = parse(br#"{"access_token":"hunter2"}"#).unwrap();
    let granted = Granted { authorization, asked: Instant::now(), lifetime: Duration::ZERO };
    assert!(!format!("{granted:?}").contains("hunter2"), "{granted:?}");
}
