//! The graph as a page: the picture, and the same in tables. It needs no script and
//! nothing from elsewhere.

use std::fmt::Write as _;

use super::svg::{STYLE, amount, name, picture, security};
use super::text::{escape, number, percent};
use super::{Graph, Kind};

const PAGE: &str = "body { margin: 0; padding: 1rem; background: var(--paper); color: var(--ink); font: 14px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; }
.picture { overflow: auto; border: 1px solid var(--edge); border-radius: 8px; max-height: 85vh; }
.picture:focus-visible { outline: 3px solid var(--focus); }
table { border-collapse: collapse; } caption { text-align: left; font-weight: 600; padding: .5rem 0; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--edge); vertical-align: top; }
td.number, th.number { text-align: right; } .bad { color: var(--bad); } .secure { color: var(--good); }
";

/// The page.
#[must_use]
pub fn page(graph: &Graph) -> String {
    let summary = escape(&graph.summary());
    // Nothing is loaded, and nothing runs, whatever a name may hold.
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>Service mesh</title>\n<style>{STYLE}{PAGE}</style>\n</head>\n<body>\n<main>\n<h1>Service mesh</h1>\n<p>{summary}</p>\n"
    );
    // Writing into text cannot fail.
    for note in &graph.notes {
        let _ = writeln!(html, "<p class=\"note\" role=\"note\">{}</p>", escape(note));
    }
    let _ = write!(
        html,
        "<div class=\"picture\" tabindex=\"0\" role=\"region\" aria-label=\"Picture of the mesh\">\n{}</div>\n",
        picture(graph, false)
    );
    html += "<p>A lock is mutual TLS. Dashed lines have errors, dashed boxes have no sidecar that was asked.</p>\n";
    html += &traffic(graph);
    html += &nodes(graph);
    html + "</main>\n</body>\n</html>\n"
}

fn traffic(graph: &Graph) -> String {
    if graph.edges.is_empty() {
        return "<p>There was no traffic.</p>\n".into();
    }
    let mut html = "<table id=\"traffic\">\n<caption>Traffic</caption>\n<thead><tr><th scope=\"col\">From</th><th scope=\"col\">To</th>\
        <th scope=\"col\">Protocol</th><th scope=\"col\" class=\"number\">Amount</th><th scope=\"col\" class=\"number\">Errors</th>\
        <th scope=\"col\" class=\"number\">Bytes</th><th scope=\"col\">Security</th></tr></thead>\n<tbody>\n"
        .to_owned();
    let places = graph.places();
    for edge in &graph.edges {
        let of = |id: &str| places.get(id).map_or_else(|| id.to_owned(), |&index| name(&graph.nodes[index]));
        let bytes = if edge.bytes > 0.0 { number(edge.bytes) } else { String::new() };
        let _ = writeln!(
            html,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td class=\"number\">{} {}</td><td class=\"number{}\">{}</td>\
             <td class=\"number\">{bytes}</td><td{}>{}</td></tr>",
            escape(&of(&edge.from)),
            escape(&of(&edge.to)),
            escape(&edge.protocol.to_uppercase()),
            amount(edge, graph.seconds),
            edge.unit(),
            if edge.errors > 0.0 { " bad" } else { "" },
            percent(edge.error_share()),
            if edge.is_secured() { " class=\"secure\"" } else { "" },
            escape(&security(edge)),
        );
    }
    html + "</tbody>\n</table>\n"
}

fn nodes(graph: &Graph) -> String {
    let mut html = "<table id=\"workloads\">\n<caption>Workloads and services</caption>\n<thead><tr><th scope=\"col\">Name</th>\
        <th scope=\"col\">Namespace</th><th scope=\"col\">Version</th><th scope=\"col\" class=\"number\">Pods</th>\
        <th scope=\"col\">Takes</th><th scope=\"col\">Called as</th></tr></thead>\n<tbody>\n"
        .to_owned();
    for node in &graph.nodes {
        let (pods, takes) = match node.kind {
            Kind::Workload => (node.pods.to_string(), node.mtls.text()),
            Kind::Service | Kind::Outside => (String::new(), ""),
        };
        let _ = writeln!(
            html,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td class=\"number\">{pods}</td><td>{takes}</td><td>{}</td></tr>",
            escape(&node.name),
            escape(&node.namespace),
            escape(&node.version),
            escape(&node.services.join(", ")),
        );
    }
    html + "</tbody>\n</table>\n"
}
