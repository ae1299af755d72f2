//! A run that was ended in the middle, and the one that goes on there: every entity exactly once.

use std::{
    io::Write as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::process::Child;

use super::command::{Ended, Setting, lines, number, pages, status};
use crate::support::{soon, stub_upstream::StubUpstream, until};

const PAGES: &str = "items?page={1..12}";

/// Pages 6 and later are to be asked for again in a minute, until `open` says that they are there.
async fn half_open() -> (StubUpstream, Arc<AtomicBool>) {
    let open = Arc::<AtomicBool>::default();
    let is_open = Arc::clone(&open);
    let closed = move |page, _| (page > 5 && !is_open.load(Ordering::SeqCst)).then(|| status(503, Some("50")));
    (pages(closed).await, open)
}

/// Waits until pages 1 to 5 are delivered and no more can be.
async fn in_the_middle(state: &Path) {
    until(async || {
        let state = std::fs::read(state).ok().and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
        state.is_some_and(|state| state["next"]["index"] == 5)
    })
    .await;
}

fn signal(process: &Child, signal: &str) {
    let id = process.id().expect("it runs").to_string();
    assert!(std::process::Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
}

async fn end(process: Child) -> Ended {
    Ended::from(soon(process.wait_with_output()).await.unwrap())
}

#[tokio::test]
async fn a_fetch_that_was_killed_goes_on_and_cuts_off_what_it_had_written_of_a_page() {
    let (upstream, open) = half_open().await;
    let setting = Setting::new(upstream.address, "");
    let arguments = ["--state", "state", "-o", "entities"];
    let process = setting.command(PAGES, &arguments).spawn().unwrap();
    in_the_middle(&setting.file("state")).await;
    signal(&process, "KILL");
    assert_eq!(end(process).await.code, None);

    // As if it had been killed in the middle of page 6.
    let mut partial = std::fs::OpenOptions::new().append(true).open(setting.file("entities")).unwrap();
    partial.write_all(b"{\"id\": \"6a\",\"n").unwrap();
    open.store(true, Ordering::SeqCst);
    let ended = setting.fetch(PAGES, &arguments).await;
    assert_eq!((ended.code, ended.output.as_str()), (Some(0), ""), "{}", ended.error);
    assert!(ended.error.starts_with("7 pages, 21 entities"), "{}", ended.error);
    assert_eq!(std::fs::read_to_string(setting.file("entities")).unwrap(), lines(1..=12));
    assert!((1..=5).all(|page| upstream.seen().iter().filter(|seen| number(seen) == page).count() == 1));

    let ended = setting.fetch(PAGES, &arguments).await;
    assert_eq!(ended.code, Some(0));
    assert!(ended.error.starts_with("0 pages, 0 entities"), "{}", ended.error);
    assert_eq!(std::fs::read_to_string(setting.file("entities")).unwrap(), lines(1..=12));
}

#[tokio::test]
async fn a_fetch_that_is_interrupted_leaves_whole_lines_and_goes_on() {
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let (upstream, open) = half_open().await;
        let setting = Setting::new(upstream.address, "");
        let process = setting.command(PAGES, &["--state", "state"]).spawn().unwrap();
        in_the_middle(&setting.file("state")).await;
        signal(&process, name);
        let first = end(process).await;
        assert_eq!((first.code, first.output), (Some(code), lines(1..=5)));
        assert!(first.error.ends_with(&format!("\ninterrupted by SIG{name}\n")), "{}", first.error);
        open.store(true, Ordering::SeqCst);
        let second = setting.fetch(PAGES, &["--state", "state"]).await;
        assert_eq!((second.code, second.output), (Some(0), lines(6..=12)), "{}", second.error);
    }
}

#[tokio::test]
async fn a_page_that_was_lost_is_had_by_the_next_run() {
    let upstream = pages(|page, before| (page == 3 && before < 4).then(|| status(500, None))).await;
    let setting = Setting::new(upstream.address, "");
    let arguments = ["--state", "state", "--output", "entities"];
    let ended = setting.fetch("items?page={1..5}", &arguments).await;
    assert_eq!(ended.code, Some(1), "{}", ended.error);
    assert_eq!(std::fs::read_to_string(setting.file("entities")).unwrap(), lines([1, 2, 4, 5]));
    let ended = setting.fetch("items?page={1..5}", &arguments).await;
    assert_eq!(ended.code, Some(0), "{}", ended.error);
    assert_eq!(std::fs::read_to_string(setting.file("entities")).unwrap(), lines([1, 2, 4, 5, 3]));
}

#[tokio::test]
async fn a_state_serves_no_other_command_line_and_no_other_output() {
    let upstream = pages(|_, _| None).await;
    let setting = Setting::new(upstream.address, "");
    let arguments = ["--state", "state", "-o", "entities"];
    assert_eq!(setting.fetch("items?token=hunter2&page={1..2}", &arguments).await.code, Some(0));
    let state = std::fs::read_to_string(setting.file("state")).unwrap();
    assert!(!state.contains("hunter2") && !state.contains("items"), "{state}");
    let other = setting.fetch("items?token=hunter2&page={1..3}", &arguments).await;
    assert_eq!(other.code, Some(1));
    assert!(other.error.contains("--state state: it belongs to another command line"), "{}", other.error);
    std::fs::write(setting.file("entities"), "short").unwrap();
    let short = setting.fetch("items?token=hunter2&page={1..2}", &arguments).await;
    assert_eq!(short.code, Some(1));
    assert!(short.error.contains("-o entities: it has 5 bytes"), "{}", short.error);
    std::fs::write(setting.file("state"), "{").unwrap();
    let broken = setting.fetch("items?token=hunter2&page={1..2}", &arguments).await;
    assert!(broken.error.contains("--state state: this is not the state of a fetch"), "{}", broken.error);
}
