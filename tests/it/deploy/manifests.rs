//! Manifests, unit and compose file agree with the configuration they bring: ports, paths, grace periods.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use cxgate::config::{Config, Sources, load};
use serde_json::Value;

use super::{elements, text, yaml};

/// Where the pod finds its secrets.
const SECRETS: &str = "/run/secrets/cxgate";

/// The ConfigMap's file as the pod would load it, with the secrets of the example.
fn configured() -> Config {
    let secrets = tempfile::tempdir().unwrap();
    let example = kubernetes("secret.example");
    for (name, value) in example["stringData"].as_object().unwrap() {
        fs::write(secrets.path().join(name), value.as_str().unwrap()).unwrap();
    }
    let map = kubernetes("configmap");
    let here = secrets.path().to_str().unwrap();
    let typed = map["data"]["cxgate.toml"].as_str().unwrap().replace(SECRETS, here);
    let file = secrets.path().join("cxgate.toml");
    fs::write(&file, typed).unwrap();
    let loaded = load(&Sources { file: Some(file), environment: BTreeMap::new() }).unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new());
    loaded.config
}

fn kubernetes(name: &str) -> Value {
    yaml(&format!("deploy/kubernetes/{name}.yaml"))
}

/// Whole seconds, as Compose and systemd write them.
fn seconds(text: &str) -> Duration {
    Duration::from_secs(text.trim_end_matches('s').parse().unwrap_or_else(|_| panic!("{text:?} is no number of seconds")))
}

#[test]
fn the_pod_and_its_configuration_agree() {
    let config = configured();
    let deployment = kubernetes("deployment");
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];

    let port = |name: &str| {
        let port = elements(&container["ports"]).find(|port| port["name"] == name);
        port.and_then(|port| port["containerPort"].as_u64()).unwrap_or_else(|| panic!("no port {name}"))
    };
    assert_eq!(port("http"), u64::from(config.listen.address.port()));
    assert_eq!(port("admin"), u64::from(config.admin.address.port()));
    assert!(config.listen.address.ip().is_unspecified() && config.admin.address.ip().is_unspecified());
    for (probe, path) in [("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
        assert_eq!(container[probe]["httpGet"], serde_json::json!({"path": path, "port": "admin"}));
    }

    let pause = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(Duration::from_secs(grace) > Duration::from_secs(pause) + config.listen.drain_timeout, "{grace} s are too few");

    let mounted = |path: &Value| elements(&container["volumeMounts"]).any(|mount| mount["mountPath"] == *path);
    assert!(mounted(&SECRETS.into()));
    let file = elements(&container["env"]).find(|variable| variable["name"] == "CXGATE_CONFIG").unwrap();
    let folder = Path::new(file["value"].as_str().unwrap()).parent().unwrap();
    assert!(mounted(&folder.to_str().unwrap().into()));
}

#[test]
fn the_pod_may_do_nothing_that_it_need_not() {
    let deployment = kubernetes("deployment");
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["runAsUser"], 65532);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(pod["automountServiceAccountToken"], false);
    let container = &pod["containers"][0]["securityContext"];
    assert_eq!(container["readOnlyRootFilesystem"], true);
    assert_eq!(container["allowPrivilegeEscalation"], false);
    assert_eq!(container["capabilities"]["drop"], serde_json::json!(["ALL"]));
    assert!(deployment["spec"]["replicas"].as_u64().unwrap() >= 2);
}

#[test]
fn everything_in_the_cluster_points_at_the_same_pods_and_ports() {
    let config = configured();
    let deployment = kubernetes("deployment");
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    for (what, selector) in [
        ("the Deployment", &deployment["spec"]["selector"]["matchLabels"]),
        ("the Service", &kubernetes("service")["spec"]["selector"]),
        ("the PodDisruptionBudget", &kubernetes("poddisruptionbudget")["spec"]["selector"]["matchLabels"]),
        ("the NetworkPolicy", &kubernetes("networkpolicy")["spec"]["podSelector"]["matchLabels"]),
    ] {
        assert_eq!(selector, labels, "{what}");
    }
    assert_eq!(kubernetes("service")["spec"]["ports"][0]["targetPort"], "http");
    assert_eq!(kubernetes("autoscaler")["spec"]["scaleTargetRef"]["name"], deployment["metadata"]["name"]);

    let policy = kubernetes("networkpolicy");
    let open: Vec<u64> = elements(&policy["spec"]["ingress"])
        .flat_map(|rule| elements(&rule["ports"]))
        .filter_map(|port| port["port"].as_u64())
        .collect();
    assert_eq!(open, [config.listen.address.port(), config.admin.address.port()].map(u64::from));

    let kustomization = kubernetes("kustomization");
    let resources: Vec<&str> = elements(&kustomization["resources"]).filter_map(Value::as_str).collect();
    for resource in &resources {
        assert!(Path::new("deploy/kubernetes").join(resource).is_file(), "{resource}");
    }
    assert!(!resources.iter().any(|resource| resource.contains("example")), "an example's secrets would be applied");
}

#[test]
fn compose_waits_for_requests_in_flight_and_mounts_what_is_there() {
    let compose = yaml("deploy/compose.yaml");
    let services = &compose["services"];
    let grace = services["cxgate"]["stop_grace_period"].as_str().unwrap();
    assert!(seconds(grace) > Config::default().listen.drain_timeout, "{grace}");
    for name in ["prometheus", "grafana"] {
        assert_eq!(services[name]["profiles"], serde_json::json!(["observability"]), "{name} must be asked for");
        let mounts = elements(&services[name]["volumes"]).filter_map(Value::as_str);
        for source in mounts.filter_map(|mount| mount.split(':').next()?.strip_prefix("./")) {
            assert!(Path::new("deploy").join(source).is_dir(), "{name} mounts {source}");
        }
    }
    let scrape = &yaml("deploy/prometheus/prometheus.yml")["scrape_configs"][0];
    let admin = services["cxgate"]["environment"]["CXGATE__ADMIN__ADDRESS"].as_str().unwrap();
    assert!(admin.ends_with(&format!(":{}", scrape["dns_sd_configs"][0]["port"])), "{admin}");
    assert_eq!(scrape["dns_sd_configs"][0]["names"], serde_json::json!(["cxgate"]));
    assert_eq!(scrape["job_name"], "cxgate", "the rules look for the job cxgate");
    assert_eq!(scrape["authorization"]["credentials_file"], "/run/secrets/admin_token");
}

#[test]
fn the_unit_waits_for_requests_in_flight_and_does_not_repeat_an_invalid_configuration() {
    let unit = text("deploy/systemd/cxgate.service");
    let setting = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("the unit has no {key}"))
    };
    assert!(seconds(setting("TimeoutStopSec")) > Config::default().listen.drain_timeout);
    assert_eq!(setting("RestartPreventExitStatus"), "78");
    assert_eq!(setting("KillSignal"), "SIGTERM");
    assert_eq!(setting("CapabilityBoundingSet"), "");
    let files: u64 = setting("LimitNOFILE").parse().unwrap();
    // Each connection of a client may need one to its upstream.
    assert!(files > 2 * Config::default().listen.max_connections as u64);
}
