//! The page: one document that is complete without scripts, made of pieces that events replace one by one.

use maud::{DOCTYPE, Markup, html};

use super::{charts::Chart, history::Span, panels, view::View};

/// What events replace: the `id` of an element, and what is in it.
pub type Piece = (&'static str, Markup);

/// A chart's section: its name, its `id`, and the chart.
type Figure = (&'static str, [&'static str; 4], Chart<'static>);

/// All that changes.
pub fn pieces(view: &View) -> Vec<Piece> {
    let span = view.span.to_string();
    let figures = figures(view).into_iter().flat_map(|(_, [_, picture, head, rows], chart)| {
        [(picture, chart.picture(&span)), (head, chart.head()), (rows, chart.rows())]
    });
    let mut pieces = vec![
        ("health", panels::health(view)),
        ("facts", panels::facts(view)),
        ("alerts", panels::alerts(view)),
        ("now", panels::now(view)),
        ("limit-rows", panels::limits(view)),
        ("busiest-rows", panels::clients(&view.busiest)),
        ("refused-rows", panels::clients(&view.refused)),
        ("moment-rows", panels::moments(view)),
        ("part-rows", panels::parts(view)),
    ];
    pieces.extend(figures);
    pieces
}

/// The whole document.
pub fn document(view: &View) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "cxgate" }
                link rel="icon" href="/dashboard/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/dashboard/style.css";
                script src="/dashboard/script.js" type="module" {}
                noscript { meta http-equiv="refresh" content="5"; }
            }
            body data-version=(env!("CARGO_PKG_VERSION")) data-span=(view.span.name()) {
                header {
                    h1 { "cxgate" }
                    p role="status" aria-live="polite" { span #health { (panels::health(view)) } " " span #link hidden {} }
                    nav aria-label="Time shown" {
                        @for span in [Span::Minutes, Span::Hour] {
                            @let current = (span == view.span).then_some("true");
                            a href={ "?span=" (span.name()) } aria-current=[current] { "Last " (span) }
                        }
                    }
                }
                main {
                    (contents(view))
                }
                footer { p #facts { (panels::facts(view)) } }
            }
        }
    }
}

fn contents(view: &View) -> Markup {
    html! {
        div #alerts { (panels::alerts(view)) }
        section aria-labelledby="now-title" {
            h2 #now-title { "Now" }
            dl #now { (panels::now(view)) }
        }
        div.charts {
            @for (title, ids, chart) in figures(view) { (figure(title, ids, &chart, view.span)) }
        }
        (table("Limits", "limit", panels::LIMIT_HEAD,
            "Admitted and refused: a second, over the last 10 s. The fullest of the five busiest buckets of each limit.",
            &panels::limits(view)))
        div.pair {
            (table("Busiest clients", "busiest", panels::CLIENT_HEAD, "Weighted by age: half of it is of the last minute.",
                &panels::clients(&view.busiest)))
            (table("Most refused clients", "refused", panels::CLIENT_HEAD, "Weighted by age: half of it is of the last minute.",
                &panels::clients(&view.refused)))
        }
        div.pair {
            (table("What changed", "moment", &["When (UTC)", "What", "Became", "Cause"],
                "The latest first, since this process started.", &panels::moments(view)))
            (table("Parts", "part", &["Part", "State"], "Store, signals, upstreams and credentials.", &panels::parts(view)))
        }
    }
}

fn figures(view: &View) -> [Figure; 4] {
    [
        ("Requests", ["requests-title", "requests", "requests-head", "requests-rows"], view.requests()),
        ("Refusals", ["refusals-title", "refusals", "refusals-head", "refusals-rows"], view.refusals()),
        ("Latency", ["latency-title", "latency", "latency-head", "latency-rows"], view.latency()),
        ("Load factor", ["load-title", "load", "load-head", "load-rows"], view.load()),
    ]
}

fn figure(title: &str, [title_id, picture, head, rows]: [&str; 4], chart: &Chart<'_>, span: Span) -> Markup {
    html! {
        section.chart aria-labelledby=(title_id) {
            h2 #(title_id) { (title) }
            p.about { (chart.title) }
            div.picture #(picture) { (chart.picture(&span.to_string())) }
            details {
                summary { "Numbers" span.unseen { " of " (title) } }
                div.scroll tabindex="0" role="region" aria-label={ "Numbers of " (title) } {
                    table {
                        caption.unseen { (chart.title) }
                        thead #(head) { (chart.head()) }
                        tbody #(rows) { (chart.rows()) }
                    }
                }
            }
        }
    }
}

fn table(title: &str, name: &str, head: &[&str], about: &str, rows: &Markup) -> Markup {
    html! {
        section aria-labelledby={ (name) "-title" } {
            h2 #{ (name) "-title" } { (title) }
            p.about { (about) }
            div.scroll tabindex="0" role="region" aria-label={ "Table: " (title) } {
                table {
                    caption.unseen { (title) }
                    thead { tr { @for title in head { th scope="col" { (title) } } } }
                    tbody #{ (name) "-rows" } { (rows) }
                }
            }
        }
    }
}
