//! What the screen shows of fixed samples, line by line.

use std::{io, time::Duration};

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    style::{Color, Modifier},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    exposition::Page,
    facts::{Facts, Sample},
    link::Trouble,
    plain,
    screen::Screen,
    table::Subject,
};

/// A sample two seconds after the one before, in which everything had happened `times` as often.
fn sample(start: Instant, times: u32) -> Sample {
    let metrics = format!(
        "# TYPE cxgate_http_requests counter
cxgate_http_requests_total{{route=\"guest-webchat\",status=\"2xx\"}} {passed}
cxgate_http_requests_total{{route=\"guest-webchat\",status=\"4xx\"}} {refused}
cxgate_decisions_total{{route=\"guest-webchat\",limit=\"per-client\",decision=\"admitted\"}} {passed}
cxgate_decisions_total{{route=\"guest-webchat\",limit=\"per-client\",decision=\"refused\"}} {refused}
cxgate_decisions_total{{route=\"data-actions\",limit=\"per-tenant\",decision=\"admitted\"}} 0
cxgate_violations_total{{origin=\"local\"}} {refused}
cxgate_violations_total{{origin=\"upstream\"}} 0
cxgate_http_request_duration_seconds_bucket{{le=\"0.001\",route=\"guest-webchat\"}} {passed}
cxgate_http_request_duration_seconds_bucket{{le=\"0.1\",route=\"guest-webchat\"}} {all}
cxgate_http_request_duration_seconds_bucket{{le=\"+Inf\",route=\"guest-webchat\"}} {all}
cxgate_upstream_requests_total{{upstream=\"cxone\",result=\"answered\"}} {passed}
cxgate_upstream_requests_total{{upstream=\"cxone\",result=\"connect\"}} 0
cxgate_upstream_connections{{upstream=\"cxone\"}} 4
cxgate_load_factor{{signal=\"backend\"}} 0.8
cxgate_http_requests_in_flight 3
cxgate_pacing_queue{{route=\"guest-webchat\"}} 7
cxgate_websockets{{route=\"guest-webchat\"}} 5
cxgate_connections{{listener=\"proxy\"}} 12
cxgate_connections{{listener=\"admin\"}} 1
# EOF
",
        passed = 60 * times,
        refused = 20 * times,
        all = 80 * times
    );
    let client = |name: &str, per_second: f64, refused: f64| {
        json!({"route": "guest-webchat", "limit": "per-client", "key": "00", "name": name, "per_second": per_second,
            "refused_per_second": refused, "error_per_second": 0.0})
    };
    let read = |value: Value| serde_json::from_value(value).unwrap();
    Sample {
        at: start + Duration::from_secs(2) * times,
        status: serde_json::from_value(json!({
            "version": "0.1.0", "config_revision": "ab12cd34ef56", "uptime_seconds": 11_520, "status": "ready",
            "store": {"store": "local", "since_seconds": 200, "replicas": 2, "last_failure": "deadline", "denied": 0,
                "debts": 0, "buckets": 1},
            "load": {}, "oauth": {},
            "upstreams": {"cxone": {"url": "https://api.cxone.com", "connections": 4}},
        }))
        .unwrap(),
        routes: serde_json::from_value(json!([
            {"route": "data-actions", "limits": [{"limit": "per-tenant", "per": ["header:x-tenant-id"], "cost": 1.0,
                "kind": "sliding_window", "capacity": 100.0, "refill_per_second": 1.6, "window_seconds": 60,
                "amended": {"seconds_left": 587}}]},
            {"route": "guest-webchat", "limits": [{"limit": "per-client", "per": ["client"], "cost": 1.0,
                "kind": "token_bucket", "capacity": 10.0, "refill_per_second": 2.0, "window_seconds": 5}]},
        ]))
        .unwrap(),
        busiest: read(json!([client("alice\u{1b}[2J", 30.0, 0.0), client("mallory", 9.0, 8.5)])),
        refused: read(json!([client("mallory", 9.0, 8.5)])),
        page: Page::parse(&metrics),
    }
}

/// A screen that has seen two samples.
fn screen(coloured: bool) -> Screen {
    let mut screen = Screen::new("127.0.0.1:9901".to_owned(), coloured);
    let start = Instant::now();
    screen.learn(Ok(sample(start, 1)));
    screen.learn(Ok(sample(start, 2)));
    screen
}

fn terminal(screen: &Screen, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen.draw(frame)).unwrap();
    terminal
}

fn lines(screen: &Screen, width: u16, height: u16) -> Vec<String> {
    let terminal = terminal(screen, width, height);
    let cells: Vec<&str> = terminal.backend().buffer().content().iter().map(ratatui::buffer::Cell::symbol).collect();
    cells.chunks(width.into()).map(|line| line.concat().trim_end().to_owned()).collect()
}

fn press(screen: &mut Screen, code: KeyCode) {
    assert!(screen.press(KeyEvent::new(code, KeyModifiers::NONE)).is_continue(), "{code:?}");
}

#[test]
fn eighty_columns_and_24_rows_show_everything() {
    let lines = lines(&screen(true), 80, 24);
    let expected = [
        "cxgate 0.1.0  127.0.0.1:9901  ready for 3h12m  configuration ab12cd34ef56",
        "┌Requests──────────────────────────────┐┌State─────────────────────────────────┐",
        "│40.0/s: 2xx 30.0, 4xx 10.0            ││store    local for 3m20s (deadline)   │",
        "│                                     █││factor   backend 0.80                 │",
        "│                                     █││latency  p50 0.7ms  p95 80ms  p99 96ms│",
        "│                                     █││upstream p50 -  p95 -  p99 -          │",
        "│refused 10.0/s here, 0.0/s upstream   ││open     3 requests, 12 connections   │",
        "│                                     █││sockets  5                            │",
        "│                                     █││queue    7                            │",
        "└──────────────────────────────────────┘└──────────────────────────────────────┘",
        " Limits   Routes   Busiest clients   Most refused   Upstreams",
        "route         limit      admitted/s refused/s▾ refused quota",
        "guest-webchat per-client       30.0       10.0    25 % 10 + 2/s",
        "data-actions  per-tenant        0.0        0.0       - 100 in 60 s for 9m47s",
    ];
    for (place, expected) in expected.iter().enumerate() {
        assert_eq!(lines[place], *expected, "line {place} of\n{}", lines.join("\n"));
    }
    assert_eq!(lines[23], "q quit  p pause  s sort  tab next  ? help");
}

#[test]
fn a_narrow_terminal_stacks_and_drops_and_a_low_one_keeps_the_table() {
    let narrow = lines(&screen(true), 40, 30);
    assert!(narrow[1].starts_with("┌Requests") && narrow[10].starts_with("┌State"), "{}", narrow.join("\n"));
    assert_eq!(narrow[20], "route         limit      admitted/s");
    let lower = lines(&screen(true), 40, 24);
    assert!(lower[1].starts_with("┌Requests") && lower[11].starts_with("route "), "{}", lower.join("\n"));
    let low = lines(&screen(true), 80, 10);
    assert!(low[2].starts_with("route "), "{}", low.join("\n"));
    for (width, height) in [(1, 1), (10, 3), (20, 5), (71, 22), (72, 14), (300, 100)] {
        let mut screen = screen(true);
        press(&mut screen, KeyCode::Char('?'));
        assert_eq!(lines(&screen, width, height).len(), usize::from(height));
    }
}

#[test]
fn keys_turn_sort_scroll_pause_and_quit() {
    let mut screen = screen(true);
    press(&mut screen, KeyCode::Char('s'));
    press(&mut screen, KeyCode::Char('s'));
    press(&mut screen, KeyCode::Char('s'));
    press(&mut screen, KeyCode::Char('s'));
    assert_eq!(lines(&screen, 80, 24)[12].split_whitespace().next(), Some("data-actions"), "by route");
    press(&mut screen, KeyCode::BackTab);
    assert_eq!(screen.subject, Subject::Upstreams);
    press(&mut screen, KeyCode::Tab);
    press(&mut screen, KeyCode::Tab);
    press(&mut screen, KeyCode::Tab);
    assert_eq!(screen.subject, Subject::Busiest);
    let shown = lines(&screen, 80, 24);
    assert!(shown[12].starts_with("alice[2J") && shown[13].starts_with("mallory"), "{}", shown.join("\n"));
    press(&mut screen, KeyCode::PageDown);
    assert!(lines(&screen, 80, 24)[12].starts_with("mallory"), "the last row stays");
    press(&mut screen, KeyCode::Char('?'));
    assert!(lines(&screen, 80, 24).iter().any(|line| line.contains("pause, go on")));
    press(&mut screen, KeyCode::Esc);
    assert!(!screen.helps);

    press(&mut screen, KeyCode::Char('p'));
    let start = Instant::now() + Duration::from_mins(1);
    screen.learn(Ok(sample(start, 90)));
    assert_eq!(screen.facts.as_ref().map(Facts::requests).as_deref(), Some("40.0/s: 2xx 30.0, 4xx 10.0"));
    assert!(lines(&screen, 80, 24)[23].starts_with("PAUSED"));
    for (code, modifiers) in [(KeyCode::Char('q'), KeyModifiers::NONE), (KeyCode::Char('c'), KeyModifiers::CONTROL)] {
        assert!(screen.press(KeyEvent::new(code, modifiers)).is_break());
    }
}

#[test]
fn a_proxy_that_is_gone_is_told_and_its_return_is_no_burst() {
    let mut screen = screen(true);
    screen.learn(Err(Trouble::Unreachable(io::ErrorKind::ConnectionRefused.into())));
    let shown = lines(&screen, 80, 24);
    assert_eq!(shown[23], "127.0.0.1:9901 cannot be reached: connection refused; trying again");
    assert!(shown[0].starts_with("cxgate 0.1.0"), "what was known stays");
    let start = Instant::now() + Duration::from_mins(1);
    screen.learn(Ok(sample(start, 30)));
    assert_eq!(screen.requests.len(), 1, "one sample has no rate");
    screen.learn(Ok(sample(start, 31)));
    assert_eq!(screen.requests, [40_000, 40_000]);
    assert!(lines(&screen, 80, 24)[23].starts_with("q quit"));
}

#[test]
fn without_colours_nothing_is_coloured() {
    for (coloured, expected) in [(true, true), (false, false)] {
        let terminal = terminal(&screen(coloured), 80, 24);
        let cells = terminal.backend().buffer().content();
        assert_eq!(cells.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset), expected);
        assert!(cells[0].modifier.contains(Modifier::REVERSED));
    }
}

#[test]
fn one_look_as_text_has_every_table_whole_and_steers_no_terminal() {
    let facts = screen(false).facts.unwrap();
    let text = plain::text(&facts, "127.0.0.1:9901");
    for line in [
        "cxgate 0.1.0  127.0.0.1:9901  ready for 3h12m  configuration ab12cd34ef56",
        "requests  40.0/s: 2xx 30.0, 4xx 10.0",
        "store     local for 3m20s (deadline)",
        "Most refused",
        "  data-actions   per-tenant         0.0         0.0        -  100 in 60 s for 9m47s  header:x-tenant-id",
        "  cxone            30.0       0.0    -            4  https://api.cxone.com",
    ] {
        assert!(text.lines().any(|found| found == line), "{line:?} is not in\n{text}");
    }
    assert!(!text.contains('\u{1b}'));
}
