//! `meshctl acl`: tokens, policies and roles of the API.

use std::time::Duration;

use hyper::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::done;
use super::input_file::text_of;
use crate::cli::acl::{AclArgs, AclCommand, LinkArgs, PolicyCommand, RoleCommand, TokenCommand};
use crate::client::{Client, encode};
use crate::outcome::{Failure, Outcome};
use crate::output::{Output, plain};

/// The token that stands for requests without one.
const ANONYMOUS: &str = "00000000-0000-0000-0000-000000000002";
/// Bytes of a file of rules.
const LONGEST_RULES: u64 = 1 << 20;

/// Makes, shows and ends tokens, policies and roles.
pub async fn acl(args: AclArgs) -> Outcome {
    let output = Output::new(args.output.output);
    let mut accounts = Accounts { client: Client::find().await? };
    match args.command {
        AclCommand::Token(command) => accounts.token(command, output).await?,
        AclCommand::Policy(command) => accounts.policy(command, output).await?,
        AclCommand::Role(command) => accounts.role(command, output).await?,
        AclCommand::Bootstrap => {
            let token: Value = accounts.put("/v1/acl/bootstrap", &json!({})).await?;
            output.show(&token, |output| token_text(output, &token))?;
        }
    }
    done()
}

struct Accounts {
    client: Client,
}

impl Accounts {
    async fn token(&mut self, command: TokenCommand, output: Output) -> Result<(), Failure> {
        match command {
            TokenCommand::Create { links, role, ttl } => {
                let mut body = self.linked(&links, &role);
                if let Some(ttl) = ttl {
                    body["ExpirationTTL"] = format!("{}s", ttl.as_secs()).into();
                }
                let token: Value = self.put("/v1/acl/token", &body).await?;
                output.show(&token, |output| token_text(output, &token))
            }
            TokenCommand::List => {
                let tokens: Vec<Value> = self.client.get("/v1/acl/tokens").await?;
                output.show(&tokens, |output| {
                    let row = |token: &Value| {
                        vec![
                            plain(text(token, "AccessorID")),
                            plain(grants(token)),
                            plain(text(token, "ExpirationTime")),
                            plain(text(token, "Description")),
                        ]
                    };
                    output.table(&["id", "grants", "expires", "description"], tokens.iter().map(row).collect())
                })
            }
            TokenCommand::Show { id } => {
                let token: Value = self.client.get(&format!("/v1/acl/token/{}", accessor(&id))).await?;
                output.show(&token, |output| token_text(output, &token))
            }
            TokenCommand::Update { id, links, role } => {
                let body = self.linked(&links, &role);
                let token: Value = self.put(&format!("/v1/acl/token/{}", accessor(&id)), &body).await?;
                output.show(&token, |output| token_text(output, &token))
            }
            TokenCommand::Delete { id } => {
                self.delete(&format!("/v1/acl/token/{}", accessor(&id))).await?;
                output.show(&json!({ "deleted": id }), |_| format!("token {id} is deleted; it counts no more"))
            }
        }
    }

    async fn policy(&mut self, command: PolicyCommand, output: Output) -> Result<(), Failure> {
        match command {
            PolicyCommand::Set { name, file, rules, description } => {
                let rules = match (rules, file) {
                    (Some(rules), _) => rules,
                    (None, Some(file)) => text_of(&file, LONGEST_RULES)?.0,
                    (None, None) => return Err(Failure::new("no rules are given").cure("give --rules or -f FILE")),
                };
                let body = json!({ "Name": name, "Description": description, "Rules": rules });
                let path = match self.id_of("policy", &name).await? {
                    Some(id) => format!("/v1/acl/policy/{}", encode(&id)),
                    None => "/v1/acl/policy".to_owned(),
                };
                let policy: Value = self.put(&path, &body).await?;
                output.show(&policy, |output| policy_text(output, &policy))
            }
            PolicyCommand::List => {
                let policies: Vec<Value> = self.client.get("/v1/acl/policies").await?;
                output.show(&policies, |output| {
                    let row = |policy: &Value| {
                        vec![plain(text(policy, "Name")), plain(text(policy, "ID")), plain(text(policy, "Description"))]
                    };
                    output.table(&["name", "id", "description"], policies.iter().map(row).collect())
                })
            }
            PolicyCommand::Show { name } => {
                let policy: Value = self.read("policy", &name).await?;
                output.show(&policy, |output| policy_text(output, &policy))
            }
            PolicyCommand::Delete { name } => {
                self.delete_named("policy", &name).await?;
                output.show(&json!({ "deleted": name }), |_| {
                    format!("policy {name} is deleted; tokens and roles with it have one less")
                })
            }
        }
    }

    async fn role(&mut self, command: RoleCommand, output: Output) -> Result<(), Failure> {
        match command {
            RoleCommand::Set { name, links, service } => {
                let mut body = self.linked(&links, &[]);
                body["Services"] = json!(service);
                body["Name"] = name.clone().into();
                let path = match self.id_of("role", &name).await? {
                    Some(id) => format!("/v1/acl/role/{}", encode(&id)),
                    None => "/v1/acl/role".to_owned(),
                };
                let role: Value = self.put(&path, &body).await?;
                output.show(&role, |output| role_text(output, &role))
            }
            RoleCommand::List => {
                let roles: Vec<Value> = self.client.get("/v1/acl/roles").await?;
                output.show(&roles, |output| {
                    let row =
                        |role: &Value| vec![plain(text(role, "Name")), plain(grants(role)), plain(text(role, "Description"))];
                    output.table(&["name", "grants", "description"], roles.iter().map(row).collect())
                })
            }
            RoleCommand::Show { name } => {
                let role: Value = self.read("role", &name).await?;
                output.show(&role, |output| role_text(output, &role))
            }
            RoleCommand::Delete { name } => {
                self.delete_named("role", &name).await?;
                output.show(&json!({ "deleted": name }), |_| format!("role {name} is deleted; tokens with it have one less"))
            }
        }
    }

    fn linked(&self, links: &LinkArgs, roles: &[String]) -> Value {
        let named = |name: &String| if is_id(name) { json!({ "ID": name }) } else { json!({ "Name": name }) };
        let here = self.client.mesh().datacenter.to_string();
        let node = |text: &String| {
            let (node, datacenter) = text.split_once(':').unwrap_or((text, &here));
            json!({ "NodeName": node, "Datacenter": datacenter })
        };
        json!({
            "Description": links.description,
            "Policies": links.policy.iter().map(named).collect::<Vec<_>>(),
            "Roles": roles.iter().map(named).collect::<Vec<_>>(),
            "ServiceIdentities": links.service_identity.iter().map(|name| json!({ "ServiceName": name })).collect::<Vec<_>>(),
            "NodeIdentities": links.node_identity.iter().map(node).collect::<Vec<_>>(),
        })
    }

    async fn put<T: DeserializeOwned>(&mut self, path: &str, body: &Value) -> Result<T, Failure> {
        self.client.call(Method::PUT, path, Some(body), Duration::ZERO).await
    }

    async fn delete(&mut self, path: &str) -> Result<(), Failure> {
        let _: Value = self.client.call(Method::DELETE, path, None::<&()>, Duration::ZERO).await?;
        Ok(())
    }

    async fn find(&mut self, kind: &str, name: &str) -> Result<Option<Value>, Failure> {
        let by = if is_id(name) { "" } else { "name/" };
        self.client.get_if_there(&format!("/v1/acl/{kind}/{by}{}", encode(name))).await
    }

    async fn id_of(&mut self, kind: &str, name: &str) -> Result<Option<String>, Failure> {
        Ok(self.find(kind, name).await?.map(|found| text(&found, "ID")))
    }

    async fn read(&mut self, kind: &str, name: &str) -> Result<Value, Failure> {
        let absent = || {
            Failure::new(format!("there is no {kind} {name}"))
                .cure(format!("`meshctl acl {kind} list` shows those that there are"))
        };
        self.find(kind, name).await?.ok_or_else(absent)
    }

    async fn delete_named(&mut self, kind: &str, name: &str) -> Result<(), Failure> {
        let id = text(&self.read(kind, name).await?, "ID");
        self.delete(&format!("/v1/acl/{kind}/{}", encode(&id))).await
    }
}

fn accessor(id: &str) -> String {
    if id == "anonymous" { ANONYMOUS.into() } else { encode(id) }
}

fn is_id(text: &str) -> bool {
    text.len() == 36 && text.split('-').map(str::len).eq([8, 4, 4, 4, 12])
}

fn text(object: &Value, field: &str) -> String {
    object[field].as_str().unwrap_or_default().to_owned()
}

/// Policies, roles and identities in one line.
fn grants(object: &Value) -> String {
    let list = |field: &str, name: &str, word: &str| {
        let items = object[field].as_array().cloned().unwrap_or_default();
        items.iter().map(|item| format!("{word} {}", text(item, name))).collect::<Vec<_>>()
    };
    let parts = [
        list("Policies", "Name", "policy"),
        list("Roles", "Name", "role"),
        list("ServiceIdentities", "ServiceName", "service"),
        list("NodeIdentities", "NodeName", "node"),
    ];
    let parts = parts.concat();
    if parts.is_empty() { "nothing".into() } else { parts.join(", ") }
}

fn token_text(output: &Output, token: &Value) -> String {
    let mut pairs = vec![("id", text(token, "AccessorID"))];
    let secret = text(token, "SecretID");
    if secret != "<hidden>" && secret != "anonymous" {
        pairs.push(("secret", format!("{secret} (shown this once)")));
    }
    pairs.push(("grants", grants(token)));
    for (word, field) in [("description", "Description"), ("expires", "ExpirationTime")] {
        let value = text(token, field);
        if !value.is_empty() {
            pairs.push((word, value));
        }
    }
    output.pairs(&pairs)
}

fn policy_text(output: &Output, policy: &Value) -> String {
    let pairs = [("name", text(policy, "Name")), ("id", text(policy, "ID")), ("description", text(policy, "Description"))];
    format!("{}\n{}", output.pairs(&pairs).trim_end(), text(policy, "Rules"))
}

fn role_text(output: &Output, role: &Value) -> String {
    output.pairs(&[
        ("name", text(role, "Name")),
        ("id", text(role, "ID")),
        ("grants", grants(role)),
        ("services", services(role)),
        ("description", text(role, "Description")),
    ])
}

fn services(role: &Value) -> String {
    let names = role["Services"].as_array().into_iter().flatten().filter_map(Value::as_str);
    names.collect::<Vec<_>>().join(", ")
}
