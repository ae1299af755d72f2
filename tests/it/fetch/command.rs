//! The program as a test runs it, in front of an upstream that has pages.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Output, Stdio},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::{
    daemon::one_route,
    stub_upstream::{Seen, StubUpstream},
};

/// Longest run of a fetch that ends by itself.
const PATIENCE: Duration = Duration::from_mins(1);

pub(super) type Answer = Response<Full<Bytes>>;

/// A configuration in a folder of its own.
pub(super) struct Setting {
    pub(super) folder: TempDir,
    pub(super) upstream: SocketAddr,
}

/// How a fetch ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) code: Option<i32>,
    pub(super) output: String,
    pub(super) error: String,
}

impl Setting {
    /// One route for `/api` to `upstream`, which tries four times and says no more of itself than `more` does.
    pub(super) fn new(upstream: SocketAddr, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let retry = r#"retry = { attempts = 4, base = "20ms", max = "50ms", on = [429, 500, 502, 503, 504] }"#;
        let configuration = one_route(upstream, "/api", &format!("refund_on = []\n{retry}\n{more}"));
        std::fs::write(folder.path().join("cxgate.toml"), configuration).unwrap();
        Self { folder, upstream }
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The URL of pages, behind `/api/`.
    pub(super) fn url(&self, pages: &str) -> String {
        format!("http://{}/api/{pages}", self.upstream)
    }

    /// Fetches `pages` with further arguments.
    pub(super) fn command(&self, pages: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cxgate"));
        command.arg("fetch").arg(self.url(pages)).args(arguments).env_clear().current_dir(self.folder.path());
        command.env("CXGATE_CONFIG", self.file("cxgate.toml")).stdin(Stdio::null()).kill_on_drop(true);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(super) async fn fetch(&self, pages: &str, arguments: &[&str]) -> Ended {
        ended(self.command(pages, arguments)).await
    }
}

pub(super) async fn ended(mut command: Command) -> Ended {
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("the fetch ends").unwrap();
    Ended::from(output)
}

impl From<Output> for Ended {
    fn from(Output { status, stdout, stderr }: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: status.code(), output: text(stdout), error: text(stderr) }
    }
}

/// Answers what `answer` makes of the number of each page, and of how often it was asked for before; else with three entities.
pub(super) async fn pages(answer: impl Fn(u64, usize) -> Option<Answer> + Send + Sync + 'static) -> StubUpstream {
    let asked = std::sync::Mutex::new(std::collections::HashMap::<u64, usize>::new());
    StubUpstream::answering(move |seen| {
        let page = number(seen);
        let mut asked = asked.lock().unwrap();
        let before = asked.entry(page).or_default();
        *before += 1;
        answer(page, *before - 1).unwrap_or_else(|| Response::new(three(page).into()))
    })
    .await
}

/// The number that a target ends with.
pub(super) fn number(seen: &Seen) -> u64 {
    let digits = seen.target.rsplit(|character: char| !character.is_ascii_digit()).next().unwrap();
    digits.parse().unwrap_or_else(|_| panic!("{}", seen.target))
}

pub(super) fn three(page: u64) -> String {
    format!("{{\n \"entities\": [\n  {{\"id\": \"{page}a\",\n   \"n\": 1.50}}, \"{page}b\", {page}]}}")
}

/// What is written of these pages.
pub(super) fn lines(pages: impl IntoIterator<Item = u64>) -> String {
    let three = |page| [format!("{{\"id\": \"{page}a\",\"n\": 1.50}}\n"), format!("\"{page}b\"\n{page}\n")];
    pages.into_iter().flat_map(three).collect()
}

pub(super) fn status(status: u16, retry_after: Option<&str>) -> Answer {
    let response = Response::builder().status(status);
    let response = retry_after.into_iter().fold(response, |response, value| response.header("retry-after", value));
    response.body("{}".into()).unwrap()
}
