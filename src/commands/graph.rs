//! `meshctl graph`: services and their calls, in layers from callers to called.

mod layers;

use std::fmt::Write;

use hyper::Method;
use hyper::StatusCode;
use postern_api::http::ServiceSummary;
use postern_edges::Verdict;
use postern_names::ServiceName;
use serde::Serialize;

use self::layers::layers;
use super::done;
use super::seen::{PairRow, edges, milliseconds, pairs, rate};
use crate::cli::Format;
use crate::cli::seen::{GraphArgs, GraphFormat, WhichArgs};
use crate::client::Client;
use crate::outcome::{Failure, Outcome};
use crate::output::{Output, Tone};
use crate::terminal;

/// The graph as JSON.
#[derive(Debug, Serialize)]
struct Graph {
    /// RFC 3339: the begin of what was looked at.
    since: String,
    /// RFC 3339: its end.
    until: String,
    services: Vec<Node>,
    edges: Vec<PairRow>,
}

#[derive(Debug, Serialize)]
struct Node {
    name: ServiceName,
    /// 0: nobody calls it.
    layer: usize,
}

/// Shows who calls whom.
pub async fn graph(args: GraphArgs) -> Outcome {
    let mut client = Client::find().await?;
    let seen = edges(&mut client, &args.which, &[], args.since, "pair").await?;
    let edges = pairs(&seen.edges);
    let registered = registered(&mut client, &args.which).await?;
    let graph = Graph { since: seen.since, until: seen.until, services: nodes(&edges, registered), edges };
    match args.output {
        GraphFormat::Text => terminal::print(&text(&Output::new(Format::Table), &graph)),
        GraphFormat::Dot => terminal::print(&dot(&graph)),
        GraphFormat::Mermaid => terminal::print(&mermaid(&graph)),
        GraphFormat::Json => Output::new(Format::Json).show(&graph, |_| String::new()),
        GraphFormat::Yaml => Output::new(Format::Yaml).show(&graph, |_| String::new()),
    }?;
    done()
}

/// Services that nobody calls are shown, too, where all are asked for and the caller may see them.
async fn registered(client: &mut Client, which: &WhichArgs) -> Result<Vec<ServiceName>, Failure> {
    if [&which.service, &which.source, &which.destination].iter().any(|name| name.is_some()) {
        return Ok(Vec::new());
    }
    let answer = client.ask(Method::GET, "/v1/services", None, std::time::Duration::ZERO).await?;
    if answer.status == StatusCode::FORBIDDEN {
        return Ok(Vec::new());
    }
    let services: Vec<ServiceSummary> = client.document(&answer)?;
    Ok(services.into_iter().map(|service| service.name).collect())
}

fn nodes(edges: &[PairRow], registered: Vec<ServiceName>) -> Vec<Node> {
    let calls: Vec<(ServiceName, ServiceName)> =
        edges.iter().map(|edge| (edge.source.clone(), edge.destination.clone())).collect();
    let mut nodes: Vec<Node> = layers(&calls, registered).into_iter().map(|(name, layer)| Node { name, layer }).collect();
    nodes.sort_by(|a, b| (a.layer, &a.name).cmp(&(b.layer, &b.name)));
    nodes
}

/// `allow`, or all verdicts where there are others.
fn verdicts(edge: &PairRow) -> String {
    edge.verdicts.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn label(edge: &PairRow) -> String {
    let rate = if edge.rate > 0.0 { rate(edge.rate) } else { format!("{} calls", edge.count) };
    let p99 = edge.p99_ms.map(|p99| format!(", p99 {}", milliseconds(Some(p99)))).unwrap_or_default();
    format!("{}, {rate}{p99}", verdicts(edge))
}

fn text(output: &Output, graph: &Graph) -> String {
    if graph.services.is_empty() {
        return "no service is known, and no call was seen\n".into();
    }
    let mut text = String::new();
    for node in &graph.services {
        let name = &node.name;
        let _ = writeln!(text, "{}{name}", "  ".repeat(node.layer));
        for edge in graph.edges.iter().filter(|edge| edge.source == *name) {
            let tone = match edge.worst() {
                Verdict::Allow => Tone::Good,
                Verdict::Audit | Verdict::Failed => Tone::Doubtful,
                Verdict::Deny => Tone::Bad,
            };
            let label = output.paint((label(edge), tone));
            let _ = writeln!(text, "{}-> {}  {label}", "  ".repeat(node.layer + 1), edge.called());
        }
    }
    text
}

fn colour(edge: &PairRow) -> &'static str {
    match edge.worst() {
        Verdict::Allow => "#2e7d32",
        Verdict::Audit => "#b26a00",
        Verdict::Deny => "#c62828",
        Verdict::Failed => "#616161",
    }
}

/// Names of services are letters, digits and hyphens: nothing in a quoted name needs to be escaped.
fn dot(graph: &Graph) -> String {
    let mut text = String::from("digraph mesh {\n  rankdir=LR;\n  node [shape=box, style=rounded];\n");
    let last = graph.services.iter().map(|node| node.layer).max().unwrap_or(0);
    for layer in 0..=last {
        let names: Vec<String> =
            graph.services.iter().filter(|node| node.layer == layer).map(|node| format!("\"{}\"", node.name)).collect();
        if !names.is_empty() {
            let _ = writeln!(text, "  {{ rank=same; {} }}", names.join("; "));
        }
    }
    for edge in &graph.edges {
        let style = if edge.worst() == Verdict::Allow { "solid" } else { "dashed" };
        let _ = writeln!(
            text,
            "  \"{}\" -> \"{}\" [label=\"{}\", color=\"{}\", style={style}];",
            edge.source,
            edge.destination,
            label(edge),
            colour(edge)
        );
    }
    text + "}\n"
}

/// A name such as `end` or `graph` is a word of Mermaid: nodes have ids of their own.
fn mermaid(graph: &Graph) -> String {
    let id = |name: &ServiceName| format!("s_{}", name.as_str().replace('-', "_"));
    let place = |name: &ServiceName| graph.services.iter().position(|node| node.name == *name);
    let unique = |name: &ServiceName| format!("{}{}", id(name), place(name).map(|at| format!("_{at}")).unwrap_or_default());
    let mut text = String::from("flowchart LR\n");
    for node in &graph.services {
        let _ = writeln!(text, "  {}[\"{}\"]", unique(&node.name), node.name);
    }
    for edge in &graph.edges {
        let arrow = if edge.worst() == Verdict::Allow { "-->" } else { "-.->" };
        let _ = writeln!(text, "  {} {arrow}|\"{}\"| {}", unique(&edge.source), label(edge), unique(&edge.destination));
    }
    for (at, edge) in graph.edges.iter().enumerate() {
        let _ = writeln!(text, "  linkStyle {at} stroke:{}", colour(edge));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::seen::samples::row;
    use super::*;

    fn graph() -> Graph {
        let rows = [
            row("web", "api", Verdict::Allow, 300),
            row("api", "end-db", Verdict::Allow, 300),
            row("api", "end-db", Verdict::Deny, 30),
            row("web", "end-db", Verdict::Audit, 30),
        ];
        let edges = pairs(&rows);
        let services = nodes(&edges, vec!["alone".parse().unwrap()]);
        Graph { since: String::new(), until: String::new(), services, edges }
    }

    #[test]
    fn callers_stand_above_what_they_call() {
        let text = text(&Output::new(Format::Table), &graph());
        assert_eq!(
            text,
            "alone\nweb\n  -> api  allow, 10/s, p99 20 ms\n  -> end-db  audit, 1.0/s, p99 20 ms\n  api\n    \
             -> end-db  allow, deny, 11/s, p99 20 ms\n    end-db\n"
        );
    }

    #[test]
    fn graphviz_and_mermaid_have_every_service_and_every_call() {
        let dot = dot(&graph());
        assert!(dot.starts_with("digraph mesh {") && dot.ends_with("}\n"));
        assert!(dot.contains("{ rank=same; \"alone\"; \"web\" }"), "{dot}");
        assert!(
            dot.contains("\"api\" -> \"end-db\" [label=\"allow, deny, 11/s, p99 20 ms\", color=\"#c62828\", style=dashed];"),
            "{dot}"
        );
        let mermaid = mermaid(&graph());
        assert!(
            mermaid.contains("  s_web_1[\"web\"]\n")
                && mermaid.contains("s_api_2 -.->|\"allow, deny, 11/s, p99 20 ms\"| s_end_db_3"),
            "{mermaid}"
        );
        assert!(mermaid.contains("linkStyle 0 stroke:#2e7d32"), "{mermaid}");
    }
}
