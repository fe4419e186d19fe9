//! `meshctl intention audited`: what audit let through, and would be denied.

use postern_api::http::{EdgeRow, Edges};

use super::super::seen::edges;
use crate::cli::seen::AuditedArgs;
use crate::client::Client;
use crate::outcome::{Answer, Outcome};
use crate::output::{Output, plain};
use crate::terminal;

/// The calls, most first. The answer is no where there are some.
pub async fn audited(output: &Output, args: AuditedArgs) -> Outcome {
    let mut client = Client::find().await?;
    let mut seen = edges(&mut client, &args.which, &["audit"], args.since, "edge").await?;
    seen.edges.sort_by_key(|row| std::cmp::Reverse(row.count));
    output.show(&seen, |output| text(output, &seen))?;
    if seen.left_out > 0 {
        terminal::note(&format!(
            "note: there was no room for {} calls since the control plane started; they are not shown",
            seen.left_out
        ));
    }
    Ok(if seen.edges.is_empty() { Answer::Yes } else { Answer::No })
}

fn text(output: &Output, seen: &Edges) -> String {
    if seen.edges.is_empty() {
        return format!("nothing was let through by audit alone since {}\n", seen.since);
    }
    let header = ["source", "destination", "port", "method", "path", "calls", "first seen", "last seen", "because"];
    let calls: u64 = seen.edges.iter().map(|row| row.count).sum();
    let pairs: std::collections::BTreeSet<_> = seen.edges.iter().map(|row| (&row.edge.source, &row.edge.destination)).collect();
    format!(
        "{}\n{calls} calls of {} pairs would have been denied since {}\n",
        output.table(&header, seen.edges.iter().map(cells).collect()),
        pairs.len(),
        seen.since
    )
}

fn cells(row: &EdgeRow) -> Vec<crate::output::ToneText> {
    let edge = &row.edge;
    let (method, shape) =
        edge.http.as_ref().map_or(("-".to_owned(), "-".to_owned()), |http| (http.method.to_string(), http.shape.to_string()));
    vec![
        plain(&edge.source),
        plain(&edge.destination),
        plain(&edge.port),
        plain(method),
        plain(shape),
        plain(row.count),
        plain(&row.first_seen),
        plain(&row.last_seen),
        plain(&edge.because),
    ]
}

#[cfg(test)]
mod tests {
    use postern_edges::{HttpPart, Method, Shape, Verdict};

    use super::super::super::seen::samples::row;
    use super::*;
    use crate::cli::Format;

    #[test]
    fn each_edge_is_a_row_and_the_sum_is_told() {
        let output = Output::new(Format::Table);
        let mut one = row("web", "api", Verdict::Audit, 7);
        one.edge.http = Some(HttpPart { method: Method::Get, shape: Shape::of("/v1/7") });
        let mut seen =
            Edges { since: "S".into(), until: "U".into(), edges: vec![one, row("web", "db", Verdict::Audit, 2)], left_out: 0 };
        let shown = text(&output, &seen);
        assert!(
            shown.contains("GET     /v1/{id}  7 ") && shown.contains("9 calls of 2 pairs would have been denied since S"),
            "{shown}"
        );
        seen.edges.clear();
        assert_eq!(text(&output, &seen), "nothing was let through by audit alone since S\n");
    }
}
