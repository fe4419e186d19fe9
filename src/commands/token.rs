//! `meshctl token`: enrolment tokens.

use std::time::Duration;

use hyper::Method;
use postern_api::http::{CreateTokenRequest, CreatedToken, Token, TokenRevoked};

use super::done;
use crate::cli::plain::{TokenArgs, TokenCommand};
use crate::client::{Client, encode};
use crate::outcome::Outcome;
use crate::output::{Output, Tone, plain};

/// Makes, lists and ends tokens.
pub async fn token(args: TokenArgs) -> Outcome {
    let output = Output::new(args.output.output);
    let mut client = Client::find().await?;
    match args.command {
        TokenCommand::Create { service, uses, ttl } => {
            let request = CreateTokenRequest { service, uses: Some(uses), ttl_s: Some(ttl.as_secs()) };
            let created: CreatedToken = client.call(Method::POST, "/v1/tokens", Some(&request), Duration::ZERO).await?;
            output.show(&created, |output| created_text(output, &created))?;
        }
        TokenCommand::List => {
            let tokens: Vec<Token> = client.get("/v1/tokens").await?;
            output.show(&tokens, |output| list_text(output, &tokens))?;
        }
        TokenCommand::Revoke { id, svids } => {
            let path = format!("/v1/tokens/{}?svids={svids}", encode(&id));
            let revoked: TokenRevoked = client.call(Method::DELETE, &path, None::<&()>, Duration::ZERO).await?;
            output.show(&revoked, |_| revoked_text(&revoked, svids))?;
        }
    }
    done()
}

fn created_text(output: &Output, created: &CreatedToken) -> String {
    output.pairs(&[
        ("token", created.token.clone()),
        ("id", created.id.clone()),
        ("service", created.service.to_string()),
        ("uses", created.uses.to_string()),
        ("expires", created.expires_at.clone()),
    ])
}

fn list_text(output: &Output, tokens: &[Token]) -> String {
    let tone = |state: &str| if state == "active" { Tone::Good } else { Tone::Plain };
    let rows = tokens.iter().map(|token| {
        vec![
            plain(&token.id),
            plain(&token.service),
            plain(format!("{} of {}", token.uses_left, token.uses)),
            (token.state.clone(), tone(&token.state)),
            plain(&token.expires_at),
            plain(&token.created_by),
        ]
    });
    output.table(&["id", "service", "uses left", "state", "expires", "created by"], rows.collect())
}

fn revoked_text(revoked: &TokenRevoked, svids: bool) -> String {
    match (svids, revoked.svids_revoked) {
        (false, _) => format!("token {} is revoked; what has enrolled with it stays (--svids ends that too)", revoked.id),
        (true, count) => format!("token {} is revoked, and {count} SVIDs with it", revoked.id),
    }
}
