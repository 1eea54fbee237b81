//! The graph as a picture.

use std::fmt::Write as _;

use super::layout::{HEIGHT, Layout, WIDTH};
use super::text::{escape, number, percent, short};
use super::way::{self, Way};
use super::{Edge, Graph, Kind, Mtls, Node};

/// Colors, of light and of dark.
pub(super) const STYLE: &str = include_str!("graph.css");
/// Most letters of a name in its box.
const NAME: usize = 22;
const NAMESPACE: usize = 30;
/// Room for what a line is labeled with.
const LABEL: f64 = 70.0;
/// From this part of errors on, traffic is drawn as failing.
const FAILING: f64 = 0.05;

/// The picture as a file of its own.
#[must_use]
pub fn file(graph: &Graph) -> String {
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}", picture(graph, true))
}

/// The picture; with its colors, when it stands by itself.
pub(super) fn picture(graph: &Graph, with_style: bool) -> String {
    let layout = Layout::of(graph);
    let places = graph.places();
    let edges: Vec<(&Edge, (usize, usize))> = graph
        .edges
        .iter()
        .filter_map(|edge| Some((edge, (*places.get(&*edge.from)?, *places.get(&*edge.to)?))))
        .collect();
    let ways = way::all(&layout, &edges.iter().map(|(_, ends)| *ends).collect::<Vec<_>>());
    let furthest = ways.iter().map(|way| way.label.0 + LABEL).fold(layout.width, f64::max);
    let (width, height) = (furthest, layout.height);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"mesh\" role=\"group\" aria-labelledby=\"mesh-title mesh-desc\" \
         width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\">\n\
         <title id=\"mesh-title\">Service mesh</title>\n<desc id=\"mesh-desc\">{}</desc>\n",
        escape(&graph.summary())
    );
    if with_style {
        let _ = writeln!(svg, "<style>{STYLE}</style>");
    }
    // Writing into text cannot fail.
    let _ = writeln!(svg, "<rect class=\"paper\" width=\"100%\" height=\"100%\"/>");
    svg += "<defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" \
            markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path class=\"tip\" d=\"M0 0L8 4L0 8z\"/></marker>\
            <symbol id=\"lock\" viewBox=\"0 0 10 12\"><path d=\"M2 5V3.5a3 3 0 0 1 6 0V5H9v7H1V5zm1.5 0h3V3.5a1.5 1.5 0 0 0-3 0z\"/></symbol></defs>\n";
    for (index, ((edge, (from, to)), way)) in edges.iter().zip(&ways).enumerate() {
        let ends = (&graph.nodes[*from], &graph.nodes[*to]);
        svg += &self::edge(index, edge, ends, graph.seconds, way);
    }
    for (index, (node, at)) in graph.nodes.iter().zip(&layout.at).enumerate() {
        svg += &self::node(index, node, *at);
    }
    svg + "</svg>\n"
}

/// How much traffic there is, in short.
pub(super) fn amount(edge: &Edge, seconds: Option<f64>) -> String {
    match seconds {
        Some(seconds) if seconds > 0.0 => format!("{}/s", number(edge.total / seconds)),
        _ => number(edge.total),
    }
}

/// How it is secured, for people.
pub(super) fn security(edge: &Edge) -> String {
    match edge.secured {
        _ if edge.is_secured() => "mutual TLS".into(),
        Some(part) if part > 0.0 => format!("{} with mutual TLS", percent(part)),
        Some(_) => "plaintext".into(),
        None => "security unknown".into(),
    }
}

pub(super) fn name(node: &Node) -> String {
    if node.namespace.is_empty() { node.name.clone() } else { format!("{}.{}", node.name, node.namespace) }
}

fn edge(index: usize, edge: &Edge, (from, to): (&Node, &Node), seconds: Option<f64>, way: &Way) -> String {
    let state = match edge.error_share() {
        0.0 => "good",
        share if share < FAILING => "warn",
        _ => "bad",
    };
    let width = (1.0 + edge.total.max(1.0).log10() * 0.6).min(5.0);
    let amount = amount(edge, seconds);
    let errors =
        if edge.errors > 0.0 { format!(", {} errors", percent(edge.error_share())) } else { String::new() };
    let said = format!(
        "{} to {}: {amount} {} of {}{errors}, {}",
        name(from),
        name(to),
        edge.unit(),
        edge.protocol.to_uppercase(),
        security(edge)
    );
    let said = escape(&said);
    let short = if edge.errors > 0.0 { format!("{amount} {}", percent(edge.error_share())) } else { amount };
    let (x, y) = way.label;
    let lock = if edge.is_secured() {
        format!(
            "<use href=\"#lock\" class=\"lock\" x=\"{:.1}\" y=\"{:.1}\" width=\"10\" height=\"12\"/>",
            x - 16.0,
            y - 10.0
        )
    } else {
        String::new()
    };
    format!(
        "<g class=\"edge {state}\" id=\"e{index}\" tabindex=\"0\" role=\"img\" aria-label=\"{said}\"><title>{said}</title>\
         <path class=\"line\" d=\"{}\" stroke-width=\"{width:.2}\" marker-end=\"url(#tip)\"/>{lock}\
         <text x=\"{:.1}\" y=\"{y:.1}\">{}</text></g>\n",
        way.path(),
        x - 3.0,
        escape(&short)
    )
}

fn node(index: usize, node: &Node, (x, y): (f64, f64)) -> String {
    let kind = match node.kind {
        Kind::Workload => "workload",
        Kind::Service => "service",
        Kind::Outside => "outside",
    };
    let mut said = match node.kind {
        Kind::Workload => format!("workload {}", name(node)),
        Kind::Service => format!("service {}", name(node)),
        Kind::Outside => name(node),
    };
    if node.kind == Kind::Workload {
        let _ = write!(said, ", {} pods with a sidecar, {}", node.pods, node.mtls.text());
    }
    if !node.services.is_empty() {
        let _ = write!(said, ", called as {}", node.services.join(", "));
    }
    let said = escape(&said);
    let below = match node.kind {
        Kind::Workload => node.namespace.clone(),
        Kind::Service => "service".into(),
        Kind::Outside => "unknown".into(),
    };
    let lock = match node.mtls {
        Mtls::Strict => format!(
            "<use href=\"#lock\" class=\"lock\" x=\"{:.1}\" y=\"{:.1}\" width=\"12\" height=\"14\"/>",
            x + WIDTH - 20.0,
            y + 8.0
        ),
        _ => String::new(),
    };
    format!(
        "<g class=\"node {kind} {}\" id=\"n{index}\" tabindex=\"0\" role=\"img\" aria-label=\"{said}\"><title>{said}</title>\
         <rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"8\"/>\
         <text class=\"name\" x=\"{:.1}\" y=\"{:.1}\">{}</text><text class=\"of\" x=\"{:.1}\" y=\"{:.1}\">{}</text>{lock}</g>\n",
        match node.mtls {
            Mtls::Strict => "strict",
            Mtls::Permissive => "permissive",
            Mtls::Disabled => "disabled",
            Mtls::Unknown => "",
        },
        x + 12.0,
        y + 22.0,
        escape(&short(&node.name, NAME)),
        x + 12.0,
        y + 40.0,
        escape(&short(&below, NAMESPACE)),
    )
}
