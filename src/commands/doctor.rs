//! `meshctl doctor`: what is wrong, and what to do.

use postern_api::http::{Finding, Severity};

use crate::cli::OutputArgs;
use crate::client::Client;
use crate::outcome::{Answer, Outcome};
use crate::output::{Output, Tone};

/// Shows every finding; the answer is no when something hurts now.
pub async fn doctor(args: OutputArgs) -> Outcome {
    let mut client = Client::find().await?;
    let mut findings: Vec<Finding> = client.get("/v1/doctor").await?;
    findings.extend(version_finding(&client));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Output::new(args.output).show(&findings, |output| text(output, &findings))?;
    let hurts = findings.iter().any(|finding| finding.severity == Severity::Error);
    Ok(if hurts { Answer::No } else { Answer::Yes })
}

fn version_finding(client: &Client) -> Option<Finding> {
    let (theirs, ours) = (&client.mesh().version, env!("CARGO_PKG_VERSION"));
    (theirs != ours).then(|| Finding {
        severity: Severity::Warning,
        code: "version_differs".into(),
        subject: "meshctl".into(),
        message: format!("this meshctl is {ours}, the control plane is {theirs}"),
        cure: "use the same version; one minor version apart is supported".into(),
    })
}

fn text(output: &Output, findings: &[Finding]) -> String {
    if findings.iter().all(|finding| finding.severity == Severity::Ok) {
        let checks = if findings.is_empty() { String::new() } else { format!(" ({} checks)", findings.len()) };
        return format!("nothing is wrong{checks}\n");
    }
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.severity {
            Severity::Ok => ("ok", Tone::Good),
            Severity::Warning => ("warning", Tone::Doubtful),
            Severity::Error => ("error", Tone::Bad),
        };
        text.push_str(&format!(
            "{} {} ({}): {}\n",
            output.paint((mark.0.into(), mark.1)),
            finding.subject,
            finding.code,
            finding.message
        ));
        if finding.severity != Severity::Ok && !finding.cure.is_empty() {
            text.push_str(&format!("    {}\n", finding.cure));
        }
    }
    text
}
