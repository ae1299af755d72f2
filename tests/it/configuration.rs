//! What is configured is what was typed, wherever it was typed; and every mistake is named at its place.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use cxgate::config::{Config, ConfigError, Loaded, Sources, load};

/// Loads a file (`/dev/null` for none) under variables.
fn load_with(file: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    load(&Sources { file: Some(file.into()), environment })
}

fn mistakes(file: &str, variables: &[(&str, &str)]) -> Vec<String> {
    load_with(file, variables).unwrap_err().mistakes.iter().map(ToString::to_string).collect()
}

fn file_with(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, text).unwrap();
    file
}

#[test]
fn each_bad_file_is_answered_by_the_lines_at_its_head() {
    let mut files: Vec<_> = fs::read_dir("tests/it/bad").unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 90, "the bad files are gone");
    for file in files {
        let name = file.to_str().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let head = text.lines().map_while(|line| line.strip_prefix("# "));
        let expected: Vec<String> = head.map(|line| format!("{name}:{line}")).collect();
        assert!(!expected.is_empty(), "{name} does not say what is expected");
        assert_eq!(mistakes(name, &[]), expected);
    }
}

#[test]
fn no_mistake_shows_a_secret() {
    let secrets = file_with(
        r#"
        admin = "hunter2"
        [store]
        redis = "redis+sentinel://:hunter2@localhost"
        sentinel_password = ["hunter2"]
        [upstreams.cxone]
        url = "https://user:hunter2@localhost/"
        [load.backend]
        endpoint = "ftp://user:hunter2@localhost/"
        [identity]
        hash_key = ["hunter2"]
        hashkey = "hunter2"
        [[whitelist]]
        client = "a"
        secret = { value = "hunter2" }
        "#,
    );
    let variables = [
        ("CXGATE__WHITELIST", r#"[{"client": "a", "secret": "hunter2""#),
        ("CXGATE__STORE__REDIS", "hunter2@localhost"),
        ("CXGATE_TOKEN", "hunter2"),
        ("CXONE_BASE_URL", "user:hunter2@localhost"),
        ("METRICS_ENDPOINT", "http://user:hunter2@localhost/"),
    ];
    for variables in [&variables[..], &[]] {
        let mistakes = mistakes(secrets.path().to_str().unwrap(), variables);
        assert!(mistakes.len() >= 6, "{mistakes:#?}");
        assert!(!mistakes.iter().any(|mistake| mistake.contains("hunter2")), "{mistakes:#?}");
    }
}

#[test]
fn a_line_that_is_no_toml_hides_no_other_mistake() {
    let file = file_with("[listen]\nmax_connections = many\nheader_timeout = 1\nbad\n[log]\nlevel = \"loud\"\nformat = \n");
    let name = file.path().to_str().unwrap();
    let lines: Vec<String> = mistakes(name, &[]).iter().map(|line| line.replace(name, "")).collect();
    let starts = [
        ":2:19: string values",
        ":3:1: listen.header_timeout = 1",
        ":4:4: key with no",
        ":6:1: log.level",
        ":7:10: string values",
    ];
    assert_eq!(lines.len(), starts.len(), "{lines:#?}");
    assert!(lines.iter().zip(starts).all(|(line, start)| line.starts_with(start)), "{lines:#?}");
}

#[test]
fn what_is_wrong_itself_neither_hides_nor_causes_another_mistake() {
    let file = file_with(
        r#"
        [[routes]]
        name = "a"
        paths = ["/b/{id}"]
        upstream = "cxone"
        [[routes]]
        name = 1
        paths = ["/a/{id}/", "/b/{id}", 3]
        upstream = "none"
        [[routes.limits]]
        per = ["path:id", "path:", "path:other"]
        token_bucket = { capacity = "10", refill_per_second = 1 }
        cost = 20
        [[routes.limits]]
        [upstreams."b a d"]
        url = 1
        "#,
    );
    let mistakes = load_with(file.path().to_str().unwrap(), &[]).unwrap_err().mistakes;
    let keys: Vec<&str> = mistakes.iter().map(|mistake| mistake.key.as_str()).collect();
    let expected = [
        "routes[1].name",
        "routes[1].paths[0]",
        "routes[1].paths[1]",
        "routes[1].paths[2]",
        "routes[1].upstream",
        "routes[1].limits[0].name",
        "routes[1].limits[0].per",
        "routes[1].limits[0].per[1]",
        "routes[1].limits[0].token_bucket.capacity",
        "routes[1].limits[1].name",
        "routes[1].limits[1].per",
        "routes[1].limits[1].token_bucket.capacity",
        "routes[1].limits[1].token_bucket.refill_per_second",
        "upstreams.\"b a d\"",
        "upstreams.\"b a d\".url",
    ];
    assert_eq!(BTreeSet::from_iter(keys), BTreeSet::from(expected), "{mistakes:#?}");
}

#[test]
fn what_is_printed_loads_back_to_the_same_and_shows_no_secret() {
    let loaded = load_with("tests/it/good/everything.toml", &[("ANALYTICS_SECRET", "hunter2-env")]).unwrap();
    let printed = loaded.config.to_toml().unwrap();
    assert!(!printed.contains("hunter2"), "{printed}");
    assert!(!format!("{loaded:?}").contains("hunter2"));
    assert!(printed.contains("redis = \"redis://cxgate:[redacted]@redis.example:6380/3\""), "{printed}");

    let again = load_with(file_with(&printed).path().to_str().unwrap(), &[]).unwrap().config;
    assert_eq!(again.to_toml().unwrap(), printed);
    let mut expected = loaded.config;
    // Secrets aside.
    expected.admin.token.clone_from(&again.admin.token);
    expected.store.redis.clone_from(&again.store.redis);
    expected.store.sentinel_password.clone_from(&again.store.sentinel_password);
    expected.identity.hash_key.clone_from(&again.identity.hash_key);
    expected.whitelist[1].secret.clone_from(&again.whitelist[1].secret);
    expected.oauth.clone_from(&again.oauth);
    expected.telemetry.headers.clone_from(&again.telemetry.headers);
    assert_eq!(again, expected);
}

#[test]
fn secrets_come_from_the_file_the_variable_or_as_they_are() {
    let config = load_with("tests/it/good/everything.toml", &[("ANALYTICS_SECRET", "hunter2-env")]).unwrap().config;
    assert_eq!(config.admin.token.unwrap().expose(), "hunter2-token");
    assert_eq!(config.identity.hash_key.unwrap().expose(), "hunter2-file");
    assert_eq!(config.whitelist[1].secret.as_ref().unwrap().expose(), "hunter2-env");
    for reference in
        [("CXGATE__ADMIN__TOKEN", r#"{"env": "CXGATE_ADMIN_TOKEN"}"#), ("CXGATE__ADMIN__TOKEN__ENV", "CXGATE_ADMIN_TOKEN")]
    {
        let config = load_with("/dev/null", &[reference, ("CXGATE_ADMIN_TOKEN", "hunter2")]).unwrap().config;
        assert_eq!(config.admin.token.unwrap().expose(), "hunter2");
    }
}

#[test]
fn a_variable_sets_its_key() {
    let routes = r#"[{"name": "b", "paths": ["/b"], "upstream": "cxone", "limits": [{"use": "shared", "cost": 2}]}]"#;
    let limits = r#"{"shared": {"per": ["route"], "token_bucket": {"capacity": 5, "refill_per_second": 0.5}}}"#;
    for (variables, lines) in [
        (&[("CXGATE__LISTEN__ADDRESS", "[::1]:1")][..], "address = \"[::1]:1\""),
        (&[("CXGATE__LISTEN__MAX_CONNECTIONS", "7")], "max_connections = 7"),
        (&[("CXGATE__LISTEN__HEADER_TIMEOUT", "3m")], "header_timeout = \"3m\""),
        (&[("CXGATE__LISTEN__TRUSTED_PROXIES", " 10.0.0.0/8 ,::1")], "trusted_proxies = [\"10.0.0.0/8\", \"::1/128\"]"),
        (&[("CXGATE__IDENTITY__SOURCES", "bearer, address")], "sources = [\"bearer\", \"address\"]"),
        (&[("CXGATE__IDENTITY__SOURCES", "")], "sources = [\"address\"]"),
        (&[("CXGATE__IDENTITY__STRIP_QUERY", "true")], "strip_query = true"),
        (&[("CXGATE__STORE__ON_FAILURE", "allow")], "on_failure = \"allow\""),
        (&[("CXGATE__STORE__REDIS", "redis://a")], "redis = \"redis://a\""),
        (&[("CXGATE__STORE__REDIS", "redis://a, redis://b")], "redis = [\"redis://a\", \"redis://b\"]"),
        (&[("REDIS_ADDR", "redis+sentinel://:p@a,b/m")], "redis = \"redis+sentinel://:[redacted]@a,b/m\""),
        (&[("CXGATE__UPSTREAMS__CXONE__URL", "http://a")], "url = \"http://a\"\nconnect_timeout = \"3s\""),
        (&[("CXGATE__UPSTREAMS__NEW__URL", "http://a")], "[upstreams.new]\nurl = \"http://a\"\nconnect_timeout = \"3s\""),
        (&[("CXGATE__UPSTREAMS", r#"{"New": {"url": "http://a"}}"#)], "[upstreams.New]\nurl = \"http://a\""),
        (&[("CXGATE__LOAD__BACKEND__MIN_REFILL_SHARE", "0.5")], "min_refill_share = 0.5"),
        (&[("CXGATE__LOAD__BACKEND__QUEUE_CURVE", "[[0, 1], [9, 0.5]]")], "queue_curve = [[0.0, 1.0], [9.0, 0.5]]"),
        (&[("CXGATE__LOAD__BACKEND__CPU_CURVE", "[]")], "cpu_curve = []"),
        (&[("CXGATE__WHITELIST", r#"[{"client": "Me"}]"#)], "[[whitelist]]\nclient = \"me\"\nnetworks = []"),
        (&[("CXGATE__ROUTES", "[]")], "routes = []"),
        (&[("CXGATE__ROUTES", routes), ("CXGATE__LIMITS", limits)], "[[routes.limits]]\nuse = \"shared\"\ncost = 2"),
        (&[("PROXY_PORT", "81")], "address = \"0.0.0.0:81\""),
        (&[("CXONE_BASE_URL", "https://eu.example/")], "url = \"https://eu.example\""),
        (&[("REDIS_ADDR", "cache:6380")], "redis = \"redis://cache:6380\""),
        (&[("REDIS_ADDR", "redis://:p@cache")], "redis = \"redis://:[redacted]@cache\""),
        (&[("METRICS_ENDPOINT", "http://m/x")], "endpoint = \"http://m/x\""),
        (&[("PROXY_PORT", "81"), ("CXGATE__LISTEN__ADDRESS", "[::1]:1")], "address = \"[::1]:1\""),
    ] {
        assert!(!Config::default().to_toml().unwrap().contains(lines), "{variables:?} would prove nothing");
        let printed = load_with("/dev/null", variables).unwrap_or_else(|error| panic!("{variables:?}: {error}"));
        let printed = printed.config.to_toml().unwrap();
        assert!(printed.contains(lines), "{variables:?}: {printed}");
    }
}

#[test]
fn a_variable_that_is_wrong_is_named() {
    let one = |name: &'static str, value: &'static str, problem: &str| {
        (name, value, format!("environment variable {name}: {problem}"))
    };
    for (name, value, expected) in [
        one(
            "CXGATE__LISTEN__MAX_CONNECTIONS",
            "x",
            r#"listen.max_connections = "x": expected a whole number from 1 to 1000000"#,
        ),
        one(
            "CXGATE__LISTEN__MAX_CONNECTIONS",
            "",
            r#"listen.max_connections = "": expected a whole number from 1 to 1000000"#,
        ),
        one(
            "CXGATE__LISTEN__TRUSTED_PROXIES",
            "::1,",
            r#"listen.trusted_proxies[1] = "": expected a network such as "10.0.0.0/8" or an address"#,
        ),
        one("CXGATE__LISTEN", "x", "listen: expected a table (in JSON, where it is a variable)"),
        one("CXGATE__ROUTES", "[{]", "routes: expected a list of tables (in JSON, where it is a variable)"),
        one("CXGATE__LISTEN__ADRESS", "x", r#"unknown variable, did you mean "CXGATE__LISTEN__ADDRESS"?"#),
        one("CXGATE_LISTEN_ADDRESS", "x", r#"unknown variable, did you mean "CXGATE__LISTEN__ADDRESS"?"#),
        one("CXGATE__listen__address", "x", r#"unknown variable, did you mean "CXGATE__LISTEN__ADDRESS"?"#),
        one("CXGATE__LISTEN__ADDRESS__HOST", "x", r#"unknown variable, did you mean "CXGATE__LISTEN__ADDRESS"?"#),
        one("CXGATE_CONFG", "x", r#"unknown variable, did you mean "CXGATE_CONFIG"?"#),
        one("CXGATE__", "x", "unknown variable"),
        one("CXGATE__NOTHING__AT__ALL", "x", "unknown variable"),
        one("CXGATE__ROUTES__0__NAME", "x", "unknown variable"),
        one("PROXY_PORT", "66000", r#"listen.address = "66000": expected a port from 0 to 65535"#),
        one(
            "METRICS_ENDPOINT",
            "m",
            r#"load.backend.endpoint = "m": expected a URL http://HOST[:PORT][/PATH][?QUERY] or the same with https"#,
        ),
    ] {
        assert_eq!(mistakes("/dev/null", &[(name, value)]), [expected]);
    }
}

#[test]
fn json_in_a_variable_is_held_to_types_and_keys() {
    let found = mistakes("/dev/null", &[("CXGATE__LISTEN", r#"{"trusted_proxies": "::1", "adress": 1}"#)]);
    assert_eq!(
        found,
        [
            r#"JSON in environment variable CXGATE__LISTEN: listen.adress: unknown key, did you mean "address"?"#,
            r#"JSON in environment variable CXGATE__LISTEN: listen.trusted_proxies = "::1": expected a list"#,
        ]
    );
}

#[test]
fn empty_variables_of_the_predecessor_and_foreign_ones_count_for_nothing() {
    let variables =
        [("PROXY_PORT", ""), ("REDIS_ADDR", ""), ("CXONE_BASE_URL", ""), ("METRICS_ENDPOINT", ""), ("CXGATEWAY", "x")];
    assert_eq!(load_with("/dev/null", &variables).unwrap().config, Config::default());
}

#[test]
fn tables_of_a_file_stand_beside_the_built_in_ones_and_its_lists_replace_them() {
    let file = file_with(
        r#"
        [upstreams.other]
        url = "http://a"
        [upstreams.cxone]
        connect_timeout = "1s"
        [[routes]]
        name = "a"
        paths = ["/"]
        upstream = "other"
        "#,
    );
    let config = load_with(file.path().to_str().unwrap(), &[]).unwrap().config;
    assert_eq!(config.upstreams.keys().collect::<Vec<_>>(), ["cxone", "other"]);
    assert_eq!(config.upstreams["cxone"].url.to_string(), "https://api.cxone.com");
    assert_eq!(config.upstreams["cxone"].connect_timeout.as_secs(), 1);
    assert_eq!(config.routes.len(), 1);
}

#[test]
fn the_file_that_was_asked_for_must_be_there() {
    let gone = "tests/it/good/nothing.toml";
    assert_eq!(mistakes(gone, &[]), [format!("{gone}: cannot be read: No such file or directory (os error 2)")]);
    let environment: BTreeMap<String, String> = [("CXGATE_CONFIG".to_owned(), gone.to_owned())].into();
    let named = load(&Sources { file: None, environment }).unwrap_err();
    assert!(named.to_string().starts_with(gone));
    let endless = mistakes("/dev/zero", &[]);
    assert_eq!(endless, ["/dev/zero: cannot be read: it is larger than 4194304 bytes"]);
    assert!(Path::new("config/cxgate.toml").exists(), "the file that is read by default");
    let default = load(&Sources::default()).unwrap();
    assert_eq!((default.origin.as_str(), default.config), ("config/cxgate.toml", Config::default()));
}

#[test]
fn what_is_hardly_meant_is_warned_of() {
    let file = file_with(
        r#"
        [[whitelist]]
        client = "a"
        [load.backend]
        interval = "2m"
        [listen]
        proxy_protocol = true
        [limits.within]
        per = ["route"]
        token_bucket = { capacity = 10, refill_per_second = 1.5 }
        published = { quota = 100, window = "1m" }
        [limits.above]
        per = ["route"]
        token_bucket = { capacity = 100, refill_per_second = 1.5 }
        published = { quota = 100, window = "1m" }
        "#,
    );
    let warnings = load_with(file.path().to_str().unwrap(), &[]).unwrap().warnings;
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    let instead =
        "token_bucket = { capacity = 10, refill_per_second = 1.5 } or sliding_window = { quota = 100, window = \"1m\" }";
    assert!(warnings[3].contains("\"above\": 100 + 1.5/s admits 190 in the first 1m"), "{warnings:?}");
    assert!(warnings[3].contains(instead), "{warnings:?}");
    assert!(warnings[0].contains("\"a\"") && warnings[0].contains("anyone can claim"), "{warnings:?}");
    assert!(warnings[1].contains("stale_after"), "{warnings:?}");
    assert!(warnings[2].contains("proxy_protocol"), "{warnings:?}");
}
