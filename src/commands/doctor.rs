//! `meshctl doctor`: what is wrong, and what to do.

mod ports;

use postern_api::http::{Finding, Severity};

use crate::cli::OutputArgs;
use crate::client::{Client, Finder};
use crate::data_dir::process_environment;
use crate::outcome::{Answer, Failure, Outcome};
use crate::output::{Output, Tone};

/// Shows every finding; the answer is no when something hurts now.
pub async fn doctor(args: OutputArgs) -> Outcome {
    // What this user has set and cannot be read is an error; a control plane that does not answer is a finding.
    let finder = Finder::new(&process_environment)?;
    let mut findings = match finder.connect().await {
        Ok(client) => found_by(client).await?,
        Err(failure) => std::iter::once(no_control_plane(failure)).chain(ports::in_the_way(&process_environment)).collect(),
    };
    findings.extend(ports::all_taken());
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Output::new(args.output).show(&findings, |output| text(output, &findings))?;
    let hurts = findings.iter().any(|finding| finding.severity == Severity::Error);
    Ok(if hurts { Answer::No } else { Answer::Yes })
}

async fn found_by(mut client: Client) -> Result<Vec<Finding>, Failure> {
    let mut findings: Vec<Finding> = client.get("/v1/doctor").await?;
    findings.extend(version_finding(&client));
    Ok(findings)
}

fn no_control_plane(failure: Failure) -> Finding {
    Finding {
        severity: Severity::Error,
        code: "control_plane_unreachable".into(),
        subject: "control plane".into(),
        message: format!(
            "{}; sidecars go on with what they know for as long as their SVIDs last, and nothing else could be checked",
            failure.what
        ),
        cure: failure.cure.unwrap_or_default(),
    }
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
