//! Alerts, dashboard and runbook speak of what a running instance exports.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{elements, text, yaml};

const ALERTS: &str = "deploy/prometheus/alerts.yml";
const DASHBOARD: &str = "deploy/grafana/dashboards/cxgate.json";
const RUNBOOK: &str = "docs/runbook.md";

/// What each section of the runbook answers.
const QUESTIONS: [&str; 4] = ["**Meaning.**", "**Impact.**", "**Look at.**", "**Do.**"];

/// Labels that Prometheus itself attaches.
const TARGET_LABELS: [&str; 2] = ["job", "instance"];

/// Every sample's name, with its labels and the values they have.
struct Exported(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

/// A metric as an expression names it, with its matchers: label, operator, value.
#[derive(Debug, PartialEq)]
struct Selector {
    metric: String,
    matchers: Vec<(String, String, String)>,
}

// === the rules ===

#[tokio::test]
async fn alerts_and_dashboard_select_what_is_exported() {
    let exported = Exported::by_a_running_instance().await;
    let expressions: Vec<(String, String)> = alerts()
        .iter()
        .map(|alert| (string(&alert["alert"]), string(&alert["expr"])))
        .chain(panels().iter().flat_map(|panel| {
            let title = string(&panel["title"]);
            elements(&panel["targets"]).map(|target| (title.clone(), string(&target["expr"]))).collect::<Vec<_>>()
        }))
        .collect();
    assert!(expressions.len() > 40, "the expressions are gone");
    let wrong: Vec<String> = expressions
        .iter()
        .flat_map(|(place, expression)| {
            exported.problems(expression).into_iter().map(move |problem| format!("{place}: {problem}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn the_runbook_and_the_autoscaler_name_metrics_that_exist() {
    let exported = Exported::by_a_running_instance().await;
    for path in [RUNBOOK, "deploy/kubernetes/autoscaler.yaml"] {
        let found = selectors(&text(path));
        assert!(!found.is_empty(), "{path} names no metric");
        for Selector { metric, .. } in found {
            // A page names a histogram as a whole.
            let is_exported = [metric.clone(), format!("{metric}_count")].iter().any(|name| exported.0.contains_key(name));
            assert!(is_exported, "{path}: {metric} is not exported");
        }
    }
}

#[test]
fn every_alert_says_what_it_is_about_and_has_a_section_in_the_runbook() {
    let runbook = text(RUNBOOK);
    let sections: BTreeMap<&str, &str> =
        runbook.split("\n## ").skip(1).filter_map(|section| section.split_once('\n')).collect();
    let alerts = alerts();
    for alert in &alerts {
        let name = string(&alert["alert"]);
        for annotation in ["summary", "description"] {
            assert!(!string(&alert["annotations"][annotation]).is_empty(), "{name} has no {annotation}");
        }
        assert!(["page", "ticket"].contains(&string(&alert["labels"]["severity"]).as_str()), "{name}");
        assert_eq!(alert["annotations"]["runbook_url"], format!("{RUNBOOK}#{}", name.to_lowercase()));
        let section = sections.get(name.as_str()).unwrap_or_else(|| panic!("{RUNBOOK} has no section {name}"));
        for question in QUESTIONS {
            assert!(section.contains(question), "{RUNBOOK}, {name}: {question} is missing");
        }
    }
    let names: BTreeSet<String> = alerts.iter().map(|alert| string(&alert["alert"])).collect();
    assert_eq!(names.len(), alerts.len(), "two alerts have one name");
    assert_eq!(sections.keys().map(ToString::to_string).collect::<BTreeSet<_>>(), names, "{RUNBOOK} and {ALERTS}");
}

#[test]
fn every_panel_has_a_title_a_unit_and_a_description_of_its_own() {
    let source = yaml("deploy/grafana/provisioning/datasources/prometheus.yaml");
    let panels = panels();
    for panel in &panels {
        let title = string(&panel["title"]);
        for (what, value) in [("unit", &panel["fieldConfig"]["defaults"]["unit"]), ("description", &panel["description"])] {
            assert!(!string(value).is_empty(), "{title:?} has no {what}");
        }
        assert!(elements(&panel["targets"]).next().is_some(), "{title:?} shows nothing");
        for target in elements(&panel["targets"]) {
            assert_eq!(target["datasource"]["uid"], source["datasources"][0]["uid"], "{title:?}");
        }
    }
    for distinct in ["title", "id"] {
        let values: BTreeSet<String> = panels.iter().map(|panel| panel[distinct].to_string()).collect();
        assert_eq!(values.len(), panels.len(), "two panels have one {distinct}");
    }
}

#[test]
fn thresholds_are_shares_of_the_defaults_they_name() {
    let config = cxgate::config::Config::default();
    let expression = |name: &str| {
        let alerts = alerts();
        let alert = alerts.iter().find(|alert| alert["alert"] == name).unwrap_or_else(|| panic!("no alert {name}"));
        string(&alert["expr"])
    };
    let is_above = |name: &str, threshold: String| {
        assert!(expression(name).ends_with(&format!(" > {threshold}")), "{name} should be above {threshold}");
    };
    is_above("CxgateBucketsNearMaximum", (config.store.max_buckets / 5 * 4).to_string());
    is_above("CxgateConnectionsNearMaximum", (config.listen.max_connections / 5 * 4).to_string());
    is_above("CxgateStoreSlow", (config.store.deadline.as_secs_f64() / 2.0).to_string());
}

// === reading ===

fn alerts() -> Vec<Value> {
    elements(&yaml(ALERTS)["groups"]).flat_map(|group| elements(&group["rules"])).cloned().collect()
}

/// The panels that show something; rows are headings.
fn panels() -> Vec<Value> {
    let dashboard: Value = serde_json::from_str(&text(DASHBOARD)).expect(DASHBOARD);
    elements(&dashboard["panels"]).filter(|panel| panel["type"] != "row").cloned().collect()
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().trim().to_owned()
}

fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// The metrics of ours, and of every process, that an expression (or a page) names, in their order.
fn selectors(expression: &str) -> Vec<Selector> {
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(start) = ["cxgate_", "process_"].iter().filter_map(|prefix| rest.find(prefix)).min() {
        let inside_a_word = rest[..start].ends_with(is_name);
        let end = rest[start..].find(|character| !is_name(character)).map_or(rest.len(), |length| start + length);
        let metric = rest[start..end].to_owned();
        rest = &rest[end..];
        let matchers = rest.strip_prefix('{').and_then(|inside| inside.split_once('}')).map_or("", |(inside, _)| inside);
        if !inside_a_word {
            found.push(Selector { metric, matchers: matchers.split(',').filter_map(matcher).collect() });
        }
    }
    found
}

fn matcher(text: &str) -> Option<(String, String, String)> {
    let (label, value) = text.trim().strip_suffix('"')?.split_once('"')?;
    let name = label.trim_end_matches(['=', '!', '~']);
    Some((name.to_owned(), label[name.len()..].to_owned(), value.to_owned()))
}

/// The labels by which an expression groups.
fn grouping(expression: &str) -> Vec<&str> {
    let groups = expression.split("by (").skip(1).filter_map(|rest| rest.split_once(')'));
    groups.flat_map(|(labels, _)| labels.split(',')).map(str::trim).collect()
}

// === impl Exported ===

impl Exported {
    async fn by_a_running_instance() -> Self {
        Self::parse(&crate::reference::exported().await)
    }

    fn parse(exported: &str) -> Self {
        let mut samples: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        for line in exported.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let labels = samples.entry(name.to_owned()).or_default();
            let inside = line.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(inside, _)| inside);
            for (label, _, value) in inside.split(',').filter_map(matcher) {
                labels.entry(label).or_default().insert(value);
            }
        }
        Self(samples)
    }

    /// What an expression takes for granted that no instance exports.
    fn problems(&self, expression: &str) -> Vec<String> {
        let (selectors, mut problems) = (selectors(expression), Vec::new());
        if selectors.is_empty() && !expression.starts_with("up{") {
            problems.push("no metric of ours".to_owned());
        }
        let mut known: BTreeSet<&str> = TARGET_LABELS.into();
        for Selector { metric, matchers } in &selectors {
            let Some(labels) = self.0.get(metric) else {
                problems.push(format!("{metric} is not exported"));
                continue;
            };
            known.extend(labels.keys().map(String::as_str));
            for (label, operator, value) in matchers {
                let is_open = value.contains(['$', '*', '.', '+']);
                let fits = match labels.get(label) {
                    Some(values) => is_open || value.split('|').all(|value| values.contains(value)),
                    None => TARGET_LABELS.contains(&label.as_str()),
                };
                if !fits {
                    problems.push(format!("{metric} has no {label}{operator}{value:?}"));
                }
            }
        }
        let strange = grouping(expression).into_iter().filter(|label| !known.contains(label));
        problems.extend(strange.map(|label| format!("nothing there has a label {label}")));
        problems
    }
}

// === the scanner can find something ===

#[test]
fn what_is_not_exported_is_found() {
    let exported = Exported::parse("# TYPE cxgate_a counter\ncxgate_a_total{b=\"c\",d=\"e\"} 1\nprocess_f 2\n");
    let problems = |expression: &str| exported.problems(expression).len();
    assert_eq!(problems(r#"sum by (b, instance) (rate(cxgate_a_total{b="c",instance=~"x"}[5m])) / process_f{job="y"}"#), 0);
    for wrong in [
        "cxgate_a",
        "cxgate_a_total_bucket",
        r#"cxgate_a_total{b="x"}"#,
        r#"cxgate_a_total{d!="x"}"#,
        r#"cxgate_a_total{x=~"c"}"#,
        r#"cxgate_a_total{b=~"c|x"}"#,
        "sum by (x) (cxgate_a_total)",
        "sum by (b) (process_f)",
        "go_goroutines",
    ] {
        assert_eq!(problems(wrong), 1, "{wrong}");
    }
}
