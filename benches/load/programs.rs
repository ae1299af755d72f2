//! What is measured: cxgate, and what is installed of its peers, each doing the same work with one processor.

use std::{env, fs, net::SocketAddr, path::Path};

use super::{
    bare,
    machine::{MEASURED, Process, Usage, free_port, is_installed},
    store::Store,
};

/// What clients do, and what they may.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    /// Distinct clients.
    pub clients: u32,
    /// Tokens each of them has and gets a second; none where nothing limits.
    pub limit: Option<(u32, f64)>,
}

/// All pass; most are refused; nothing limits.
pub const SCENARIOS: [Scenario; 3] = [
    Scenario { name: "A", clients: 10_000, limit: Some((1_000_000, 1e6)) },
    Scenario { name: "B", clients: 10, limit: Some((10, 2.0)) },
    Scenario { name: "C", clients: 10_000, limit: None },
];

/// A proxy that can be measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Nginx,
    Haproxy,
    Traefik,
    Bare,
    BareOnRedis,
    Cxgate,
    CxgateOnRedis,
}

/// What a proxy has before it and behind it, and what it is to do.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// Where its files go.
    pub folder: &'a Path,
    /// The port of what it forwards to.
    pub upstream: u16,
    /// Tokens each client has and gets a second; none where nothing limits.
    pub limit: Option<(u32, f64)>,
    /// How many limits of that kind there are, of cxgate.
    pub limits: usize,
}

/// A proxy that runs, and the store it asks.
pub struct Running {
    pub port: u16,
    pub proxy: Process,
    pub store: Option<Store>,
}

impl<'a> Work<'a> {
    /// What a scenario asks for.
    pub fn of(folder: &'a Path, upstream: SocketAddr, scenario: Scenario) -> Self {
        Self { folder, upstream: upstream.port(), limit: scenario.limit, limits: 1 }
    }
}

impl Running {
    /// What the proxy has used, and what Redis has.
    pub fn usage(&self) -> (Usage, Usage) {
        (self.proxy.usage(), self.store.as_ref().map_or(Usage::default(), Store::usage))
    }
}

impl Program {
    /// All of them; nginx comes first, because the others are compared with it.
    pub const ALL: [Self; 7] =
        [Self::Nginx, Self::Haproxy, Self::Traefik, Self::Bare, Self::BareOnRedis, Self::Cxgate, Self::CxgateOnRedis];

    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Traefik => "Traefik, Redis",
            Self::Bare => "bare hyper",
            Self::BareOnRedis => "bare, Redis",
            Self::Cxgate => "cxgate",
            Self::CxgateOnRedis => "cxgate, Redis",
        }
    }

    /// Whether it does what the scenario asks for.
    pub fn takes_part(self, scenario: Scenario) -> bool {
        match self {
            Self::Nginx | Self::Haproxy | Self::Traefik | Self::Cxgate => true,
            Self::Bare => scenario.limit.is_none(),
            Self::BareOnRedis | Self::CxgateOnRedis => scenario.limit.is_some(),
        }
    }

    /// What of it cannot be found here.
    pub fn missing(self) -> Option<&'static str> {
        let needed: &[&str] = match self {
            Self::Nginx => &["nginx"],
            Self::Haproxy => &["haproxy"],
            Self::Traefik => &["traefik", "redis-server"],
            Self::Bare | Self::Cxgate => &[],
            Self::BareOnRedis | Self::CxgateOnRedis => &["redis-server"],
        };
        needed.iter().find(|program| !is_installed(program)).copied()
    }

    /// Starts it, and a Redis where it keeps its buckets there.
    pub async fn start(self, work: Work<'_>) -> Running {
        let stored = match self {
            Self::Traefik => work.limit.is_some(),
            _ => matches!(self, Self::BareOnRedis | Self::CxgateOnRedis),
        };
        let store = if stored { Some(Store::start(work.folder, false).await) } else { None };
        let port = free_port();
        let proxy = self.start_before(work, port, store.as_slice()).await;
        Running { port, proxy, store }
    }

    /// Starts it on a port, before a Redis, or a Cluster of several, or none.
    pub async fn start_before(self, work: Work<'_>, port: u16, stores: &[Store]) -> Process {
        let file = work.folder.join("proxy.yml").to_string_lossy().into_owned();
        let redis = stores.first().map(Store::port);
        let (text, command): (_, Vec<String>) = match self {
            Self::Nginx => (nginx(port, work), vec!["nginx".into(), "-c".into(), file.clone()]),
            Self::Haproxy => (haproxy(port, work), vec!["haproxy".into(), "-db".into(), "-f".into(), file.clone()]),
            Self::Traefik => (
                traefik(work, redis),
                vec![
                    "traefik".into(),
                    format!("--entryPoints.web.address=127.0.0.1:{port}"),
                    format!("--providers.file.filename={file}"),
                    "--global.checkNewVersion=false".into(),
                    "--global.sendAnonymousUsage=false".into(),
                ],
            ),
            Self::Bare | Self::BareOnRedis => (String::new(), bare(port, work, redis)),
            Self::Cxgate | Self::CxgateOnRedis => {
                (cxgate(port, work, stores), vec![program_under_test(), "run".into(), "--config".into(), file.clone()])
            }
        };
        fs::write(&file, text).expect("a file can be written");
        Process::start(&command, MEASURED, port).await
    }
}

/// cxgate as it was built with this benchmark, unless another build is named.
fn program_under_test() -> String {
    env::var("BENCH_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_cxgate").to_owned())
}

fn bare(port: u16, Work { upstream, limit, .. }: Work<'_>, redis: Option<u16>) -> Vec<String> {
    let program = env::current_exe().expect("this program").to_string_lossy().into_owned();
    let mut command = vec![program, bare::ARGUMENT.into(), port.to_string(), upstream.to_string()];
    if let Some(((capacity, rate), redis)) = limit.zip(redis) {
        command.extend([redis.to_string(), capacity.to_string(), rate.to_string()]);
    }
    command
}

/// Where Redis does not answer, which is not what is measured, answers are strange.
fn cxgate(port: u16, Work { upstream, limit, limits, .. }: Work<'_>, stores: &[Store]) -> String {
    let urls: Vec<_> = stores.iter().map(|store| format!("\"redis://127.0.0.1:{}\"", store.port())).collect();
    let store = match stores {
        [] => String::new(),
        [alone] if !alone.is_clustered() => format!("redis = {}\n", urls[0]),
        _ => format!("redis = [{}]\n", urls.join(", ")),
    };
    let limit = |number: usize| {
        let (capacity, rate) = limit?;
        Some(format!(
            "[[routes.limits]]\nname = \"limit-{number}\"\nper = [\"client\"]\n\
             token_bucket = {{ capacity = {capacity}, refill_per_second = {rate} }}\n"
        ))
    };
    let limits: String = (0..limits).filter_map(limit).collect();
    format!(
        "[listen]\naddress = \"127.0.0.1:{port}\"\nmax_connections = 20000\n[admin]\naddress = \"127.0.0.1:{}\"\n\
         [store]\nmax_buckets = 8000000\ndeadline = \"2s\"\non_failure = \"deny\"\n{store}[upstreams.stub]\nurl = \"http://127.0.0.1:{upstream}\"\n\
         max_connections = 20000\n[[routes]]\nname = \"bench\"\npaths = [\"/\"]\nupstream = \"stub\"\n{limits}",
        free_port()
    )
}

fn nginx(port: u16, Work { folder, upstream, limit, .. }: Work<'_>) -> String {
    let (zone, limit) = limit.map_or_else(Default::default, |(capacity, rate)| {
        // It knows no rate below one.
        let rate = rate.max(1.0);
        let zone = format!("limit_req_zone $http_x_client_id zone=clients:64m rate={rate}r/s; limit_req_status 429;");
        (zone, format!("limit_req zone=clients burst={} nodelay;", capacity - 1))
    });
    format!(
        "daemon off; master_process off; pid {folder}/nginx.pid; error_log /dev/null crit;\n\
         events {{ worker_connections 20000; }}\n\
         http {{\n  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; {zone}\n\
         proxy_temp_path {folder}/proxy; client_body_temp_path {folder}/body;\n\
         upstream stub {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000000; }}\n\
         server {{ listen 127.0.0.1:{port} backlog=1024; location / {{\n    {limit}\n\
         proxy_pass http://stub; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n  }} }}\n}}\n",
        folder = folder.display()
    )
}

/// Its window of five seconds admits what a bucket would over the same time.
fn haproxy(port: u16, Work { upstream, limit, .. }: Work<'_>) -> String {
    let limit = limit.map_or_else(String::new, |(capacity, rate)| {
        format!(
            "  stick-table type string len 64 size 1m expire 30s store gpc0,gpc0_rate(5s)\n\
             \x20 http-request track-sc0 req.hdr(X-Client-Id)\n\
             \x20 http-request deny deny_status 429 if {{ sc0_gpc0_rate ge {} }}\n\
             \x20 http-request sc-inc-gpc0(0)\n",
            f64::from(capacity).max(rate * 5.0)
        )
    });
    format!(
        "global\n  maxconn 8192\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 600s\n\
         \x20 timeout server 600s\n  option forwardfor\nfrontend clients\n  bind 127.0.0.1:{port}\n{limit}\
         \x20 default_backend stub\nbackend stub\n  http-reuse always\n  server stub 127.0.0.1:{upstream} pool-max-conn 512\n"
    )
}

fn traefik(Work { upstream, limit, .. }: Work<'_>, redis: Option<u16>) -> String {
    let limit = limit.zip(redis).map(|((capacity, rate), redis)| {
        format!(
            "  middlewares:\n    limit:\n      rateLimit:\n        average: {rate}\n        burst: {capacity}\n\
             \x20       sourceCriterion: {{ requestHeaderName: X-Client-Id }}\n\
             \x20       redis: {{ endpoints: [\"127.0.0.1:{redis}\"] }}\n"
        )
    });
    let middlewares = if limit.is_some() { "middlewares: [limit], " } else { "" };
    format!(
        "http:\n  routers:\n    all: {{ rule: \"PathPrefix(`/`)\", {middlewares}service: stub }}\n\
         \x20 services:\n    stub: {{ loadBalancer: {{ servers: [{{ url: \"http://127.0.0.1:{upstream}\" }}] }} }}\n{}",
        limit.unwrap_or_default()
    )
}
