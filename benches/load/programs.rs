//! What is measured: cxgate, and what is installed of its peers, each doing the same work with one processor.

use std::{fs, path::Path};

use super::machine::{AROUND, MEASURED, Process, free_port, is_installed};

/// What clients do, and what they may.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    /// Distinct clients.
    pub clients: u32,
    /// Tokens each of them has and gets a second; none where nothing limits.
    pub limit: Option<(u32, u32)>,
}

/// All pass; most are refused; nothing limits.
pub const SCENARIOS: [Scenario; 3] = [
    Scenario { name: "A", clients: 10_000, limit: Some((1_000_000, 1_000_000)) },
    Scenario { name: "B", clients: 10, limit: Some((10, 2)) },
    Scenario { name: "C", clients: 10_000, limit: None },
];

/// A proxy that can be measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Nginx,
    Haproxy,
    Traefik,
    Cxgate,
    CxgateOnRedis,
}

/// A proxy that runs, and the store it asks.
pub struct Running {
    pub port: u16,
    pub proxy: Process,
    pub redis: Option<Process>,
}

impl Program {
    /// All of them; nginx comes first, because the others are compared with it.
    pub const ALL: [Self; 5] = [Self::Nginx, Self::Haproxy, Self::Traefik, Self::Cxgate, Self::CxgateOnRedis];

    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Traefik => "traefik, Redis",
            Self::Cxgate => "cxgate",
            Self::CxgateOnRedis => "cxgate, Redis",
        }
    }

    /// Whether it is here, and the scenario says something about it.
    pub fn takes_part(self, scenario: Scenario) -> bool {
        match self {
            Self::Nginx => is_installed("nginx"),
            Self::Haproxy => is_installed("haproxy"),
            Self::Traefik => is_installed("traefik") && is_installed("redis-server"),
            Self::Cxgate => true,
            Self::CxgateOnRedis => is_installed("redis-server") && scenario.limit.is_some(),
        }
    }

    /// Starts it, with its files below `folder`, in front of an upstream, with `limits` limits of one kind.
    pub async fn start(self, folder: &Path, upstream: u16, limit: Option<(u32, u32)>, limits: usize) -> Running {
        let port = free_port();
        let wants_redis = self == Self::CxgateOnRedis || (self == Self::Traefik && limit.is_some());
        let redis_port = free_port();
        let redis = if wants_redis { Some(redis(folder, redis_port).await) } else { None };
        let file = folder.join("proxy.conf").to_string_lossy().into_owned();
        let (text, command): (_, Vec<&str>) = match self {
            Self::Nginx => (nginx(folder, port, upstream, limit), vec!["nginx", "-c", &file]),
            Self::Haproxy => (haproxy(port, upstream, limit), vec!["haproxy", "-db", "-f", &file]),
            Self::Traefik => (traefik(port, upstream, limit, redis_port), vec!["traefik", "--configFile", &file]),
            Self::Cxgate => (cxgate(port, upstream, limit, limits, None), vec![CXGATE, "run", "--config", &file]),
            Self::CxgateOnRedis => {
                (cxgate(port, upstream, limit, limits, Some(redis_port)), vec![CXGATE, "run", "--config", &file])
            }
        };
        fs::write(&file, text.replace("FOLDER", &folder.to_string_lossy())).expect("a file can be written");
        Running { port, proxy: Process::start(&command, MEASURED, port).await, redis }
    }
}

const CXGATE: &str = env!("CARGO_BIN_EXE_cxgate");

async fn redis(folder: &Path, port: u16) -> Process {
    let (text, folder) = (port.to_string(), folder.to_string_lossy());
    let command = ["redis-server", "--port", &text, "--bind", "127.0.0.1", "--save", "", "--dir", &folder];
    Process::start(&command, AROUND, port).await
}

fn cxgate(port: u16, upstream: u16, limit: Option<(u32, u32)>, limits: usize, redis: Option<u16>) -> String {
    let store = redis.map_or(String::new(), |redis| format!("redis = \"redis://127.0.0.1:{redis}/0\"\n"));
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
         [store]\nmax_buckets = 8000000\n{store}[upstreams.stub]\nurl = \"http://127.0.0.1:{upstream}\"\n\
         max_connections = 20000\n[[routes]]\nname = \"bench\"\npaths = [\"/\"]\nupstream = \"stub\"\n{limits}",
        free_port()
    )
}

fn nginx(folder: &Path, port: u16, upstream: u16, limit: Option<(u32, u32)>) -> String {
    let (zone, limit) = limit.map_or_else(Default::default, |(capacity, rate)| {
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
fn haproxy(port: u16, upstream: u16, limit: Option<(u32, u32)>) -> String {
    let limit = limit.map_or_else(String::new, |(capacity, rate)| {
        format!(
            "  stick-table type string len 64 size 1m expire 30s store gpc0,gpc0_rate(5s)\n\
             \x20 http-request track-sc0 req.hdr(X-Client-Id)\n\
             \x20 http-request deny deny_status 429 if {{ sc0_gpc0_rate ge {} }}\n\
             \x20 http-request sc-inc-gpc0(0)\n",
            capacity.max(rate.saturating_mul(5))
        )
    });
    format!(
        "global\n  maxconn 8192\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 600s\n\
         \x20 timeout server 600s\n  option forwardfor\nfrontend clients\n  bind 127.0.0.1:{port}\n{limit}\
         \x20 default_backend stub\nbackend stub\n  http-reuse always\n  server stub 127.0.0.1:{upstream} pool-max-conn 512\n"
    )
}

fn traefik(port: u16, upstream: u16, limit: Option<(u32, u32)>, redis: u16) -> String {
    let limit = limit.map(|(capacity, rate)| {
        format!(
            "  middlewares:\n    limit:\n      rateLimit:\n        average: {rate}\n        burst: {capacity}\n\
             \x20       sourceCriterion: {{ requestHeaderName: X-Client-Id }}\n\
             \x20       redis: {{ endpoints: [\"127.0.0.1:{redis}\"] }}\n"
        )
    });
    let middlewares = if limit.is_some() { "middlewares: [limit], " } else { "" };
    format!(
        "entryPoints: {{ web: {{ address: \"127.0.0.1:{port}\" }} }}\nproviders: {{ file: {{ filename: \"FOLDER/proxy.conf\" }} }}\n\
         http:\n  routers:\n    all: {{ rule: \"PathPrefix(`/`)\", {middlewares}service: stub }}\n\
         \x20 services:\n    stub: {{ loadBalancer: {{ servers: [{{ url: \"http://127.0.0.1:{upstream}\" }}] }} }}\n{}",
        limit.unwrap_or_default()
    )
}
