//! Tokens, policies and roles.
//!
//! Secrets are kept as hashes: a secret is in the answer that makes its token and in no other, where it reads `<hidden>`.

use std::time::{Duration, SystemTime};

use axum::extract::State;
use data_encoding::BASE64;
use postern_names::ServiceName;
use serde::Serialize;
use serde_json::{Value, json};

use super::super::{Api, Shared, rfc3339};
use super::answer::Answer;
use super::body::Json;
use super::call::Call;
use super::error::ConsulError;
use super::fields::Fields;
use crate::acl::{
    ANONYMOUS_ACCESSOR, Access, AccountError, GLOBAL_MANAGEMENT, MANAGEMENT, Named, NewLinks, NewPolicy, NewRole, NewToken,
    NodeIdentity, Resource, ServiceIdentity, anonymous,
};
use crate::mirror::AccessView;
use crate::records::{AccessPolicyRecord, AccessRoleRecord, AccessTokenRecord, Links};

const HIDDEN: &str = "<hidden>";

impl From<AccountError> for ConsulError {
    fn from(error: AccountError) -> Self {
        let text = error.to_string();
        match error {
            AccountError::NotFound(_) => Self::not_found(text),
            AccountError::Invalid(_) | AccountError::Rules(_) => Self::bad_request(text),
            AccountError::Bootstrapped => Self::denied(format!("Permission denied: {text}")),
            AccountError::Store(error) => Self::from(error),
            AccountError::Unwritable(error) => Self::internal(error),
        }
    }
}

/// `PUT /v1/acl/bootstrap`: unlike Consul's it needs the operator, who there is from the start.
pub(super) async fn bootstrap(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::Write, Resource::Acl)?;
    let (accessor, secret) = api.accounts.bootstrap(&call.author).await?;
    token_answer(&api, &call, &accessor, Some(&secret))
}

/// `GET /v1/acl/tokens`
pub(super) async fn tokens(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::Read, Resource::Acl)?;
    let now = SystemTime::now();
    let (index, tokens) = api.mirror.read(|view| {
        let access = &view.access;
        let wanted = |links: &Links| {
            let policy = call.text("policy").is_none_or(|id| links.policies.iter().any(|own| own == id));
            let role = call.text("role").is_none_or(|id| links.roles.iter().any(|own| own == id));
            let service =
                call.text("servicename").is_none_or(|name| links.service_identities.iter().any(|own| own.service == name));
            policy && role && service
        };
        let live = access.tokens().map(|(_, stored)| stored).filter(|(token, _)| token.expires_at.is_none_or(|end| end > now));
        let mut tokens: Vec<Value> =
            live.filter(|(token, _)| wanted(&token.links)).map(|stored| token(access, stored, HIDDEN)).collect();
        if access.token(ANONYMOUS_ACCESSOR).is_none() && wanted(&Links::default()) {
            tokens.push(token(access, &(anonymous(), 0), ANONYMOUS_SECRET));
        }
        (access.revision(), tokens)
    });
    Ok(Answer::json(&call, &tokens)?.at(index))
}

const ANONYMOUS_SECRET: &str = "anonymous";

/// `PUT /v1/acl/token`
pub(super) async fn create_token(State(api): Shared, call: Call, Json(body): Json) -> Result<Answer, ConsulError> {
    call.require(Access::Write, Resource::Acl)?;
    let text = |name: &str| body.text(name).map(|text| Some(text).filter(|text| !text.is_empty()));
    let new = NewToken {
        accessor: text("AccessorID")?,
        secret: text("SecretID")?.map(Into::into),
        description: body.text("Description")?,
        links: links(&body)?,
        local: body.flag("Local")?,
        ttl: ttl(&body)?,
    };
    let (accessor, secret) = api.accounts.create_token(new, &call.author).await?;
    token_answer(&api, &call, &accessor, Some(&secret))
}

fn ttl(body: &Fields) -> Result<Option<Duration>, ConsulError> {
    let given = body.duration("ExpirationTTL")?.filter(|ttl| !ttl.is_zero());
    let end = body.text("ExpirationTime")?;
    if end.is_empty() || end.starts_with("0001-") {
        return Ok(given);
    }
    if given.is_some() {
        return Err(ConsulError::bad_request("Token Expiration TTL and Expiration Time cannot both be set"));
    }
    let parsed = time::OffsetDateTime::parse(&end, &time::format_description::well_known::Rfc3339);
    let end = parsed.map_err(|_| ConsulError::bad_request("ExpirationTime is not a time of RFC 3339"))?;
    let left = SystemTime::from(end).duration_since(SystemTime::now());
    left.map(Some).map_err(|_| ConsulError::bad_request("ExpirationTime cannot be in the past"))
}

/// `GET /v1/acl/token/self`
pub(super) async fn own_token(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    if call.authority.is_operator() {
        let links = json!([{ "ID": MANAGEMENT, "Name": GLOBAL_MANAGEMENT }]);
        let answer = json!({
            "AccessorID": "00000000-0000-0000-0000-000000000003", "SecretID": HIDDEN, "Description": "The operator of this control plane",
            "Policies": links, "Local": false, "CreateTime": rfc3339(SystemTime::UNIX_EPOCH), "Hash": "", "CreateIndex": 0, "ModifyIndex": 0,
        });
        return Answer::json(&call, &answer);
    }
    let accessor = call.authority.accessor().unwrap_or(ANONYMOUS_ACCESSOR).to_owned();
    token_answer(&api, &call, &accessor, None)
}

/// `GET /v1/acl/token/{accessor}`
pub(super) async fn read_token(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::Read, Resource::Acl)?;
    let accessor = call.name_after("/v1/acl/token/", "token AccessorID")?;
    token_answer(&api, &call, &accessor, None)
}

/// `PUT /v1/acl/token/{accessor}`
pub(super) async fn update_token(State(api): Shared, call: Call, Json(body): Json) -> Result<Answer, ConsulError> {
    call.require(Access::Write, Resource::Acl)?;
    let accessor = call.name_after("/v1/acl/token/", "token AccessorID")?;
    let named = body.text("AccessorID")?;
    if !named.is_empty() && named != accessor {
        return Err(ConsulError::bad_request("Token Accessor ID in URL and payload do not match"));
    }
    api.accounts.update_token(&accessor, body.text("Description")?, links(&body)?, &call.author).await?;
    token_answer(&api, &call, &accessor, None)
}

/// `DELETE /v1/acl/token/{accessor}`
pub(super) async fn delete_token(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::Write, Resource::Acl)?;
    let accessor = call.name_after("/v1/acl/token/", "token AccessorID")?;
    api.accounts.delete_token(&accessor, &call.author).await?;
    Answer::json(&call, &true)
}

/// `PUT /v1/acl/token/{accessor}/clone`: a new token that grants the same.
pub(super) async fn clone_token(State(api): Shared, call: Call, Json(body): Json) -> Result<Answer, ConsulError> {
    call.require(Access::Write, Resource::Acl)?;
    let path = call.name_after("/v1/acl/token/", "token AccessorID")?;
    let accessor = path.trim_end_matches("/clone");
    let (record, _) = stored_token(&api, accessor)?;
    let named = |id: &String| Named { id: id.clone(), name: String::new() };
    let description = body.text("Description")?;
    let new = NewToken {
        description: if description.is_empty() { record.description } else { description },
        links: NewLinks {
            // What was deleted since grants nothing, and cannot be linked to.
            policies: api.mirror.read(|view| {
                let there = |id: &&String| *id == MANAGEMENT || view.access.policy(id).is_some();
                record.links.policies.iter().filter(there).map(named).collect()
            }),
            roles: api
                .mirror
                .read(|view| record.links.roles.iter().filter(|id| view.access.role(id).is_some()).map(named).collect()),
            service_identities: record.links.service_identities,
            node_identities: record.links.node_identities,
        },
        local: record.local,
        ..NewToken::default()
    };
    let (accessor, secret) = api.accounts.create_token(new, &call.author).await?;
    token_answer(&api, &call, &accessor, Some(&secret))
}

fn stored_token(api: &Api, accessor: &str) -> Result<(AccessTokenRecord, u64), ConsulError> {
    let found = api.mirror.read(|view| view.access.token(accessor).map(|(_, stored)| stored.clone()));
    match found {
        Some(found) => Ok(found),
        None if accessor == ANONYMOUS_ACCESSOR => Ok((anonymous(), 0)),
        None => Err(ConsulError::not_found("ACL not found: there is no such token")),
    }
}

fn token_answer(api: &Api, call: &Call, accessor: &str, secret: Option<&str>) -> Result<Answer, ConsulError> {
    let stored = stored_token(api, accessor)?;
    let secret = secret.unwrap_or(if accessor == ANONYMOUS_ACCESSOR { ANONYMOUS_SECRET } else { HIDDEN });
    let (index, answer) = api.mirror.read(|view| (view.access.revision(), token(&view.access, &stored, secret)));
    Ok(Answer::json(call, &answer)?.at(index))
}

/// `GET /v1/acl/policies`
pub(super) async fn policies(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::Read, Resource::Acl)?;
    let (index, policies) = api.mirror.read(|view| {
        let management = management();
        let stored = view.access.policies().map(|(record, revision)| (record, *revision));
        let mut policies: Vec<Value> =
            std::iter::once((&management, 0)).chain(stored).map(|(record, at)| policy(record, at)).collect();
        for policy in &mut policies {
            // Rules are read one by one.
            policy.as_object_mut().map(|policy| policy.remove("Rules"));
        }
        (view.access.revision(), policies)
    });
    Ok(Answer::json(&call, &policies)?.at(index))
}

/// `PUT /v1/acl/policy`
pub(super) async fn create_policy(State(api): Shared, call: Call, Json(body): Json) -> Result<Answer, ConsulError> {
    call.require(Access::Write, Resource::Acl)?;
    let id = api.accounts.set_policy(None, new_policy(&body, "")?, &call.author).await?;
    policy_answer(&api, &call, |policy| policy.id == id)
}

/// `GET /v1/acl/policy/{id}`
pub(super) async fn read_policy(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::Read, Resource::Acl)?;
    let id = call.name_after("/v1/acl/policy/", "policy ID")?;
    policy_answer(&api, &call, |policy| policy.id == id)
}

/// `GET /v1/acl/policy/name/{name}`
pub(super) async fn named_policy(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::Read, Resource::Acl)?;
    let name = call.name_after("/v1/acl/policy/name/", "policy name")?;
    policy_answer(&api, &call, |policy| policy.name == name)
}

/// `PUT /v1/acl/policy/{id}`
pub(super) async fn update_policy(State(api): Shared, call: Call, Json(body): Json) -> Result<Answer, ConsulError> {
    call.require(Access::Write, Resource::Acl)?;
    let id = call.name_after("/v1/acl/policy/", "policy ID")?;
    let name = api.mirror.read(|view| view.access.policy(&id).map(|(policy, _)| policy.name.clone())).unwrap_or_default();
    api.accounts.set_policy(Some(&id), new_policy(&body, &name)?, &call.author).await?;
    policy_answer(&api, &call, |policy| policy.id == id)
}

/// `DELETE /v1/acl/policy/{id}`
pub(super) async fn delete_policy(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::Write, Resource::Acl)?;
    let id = call.name_after("/v1/acl/policy/", "policy ID")?;
    api.accounts.delete_policy(&id, &call.author).await?;
    Answer::json(&call, &true)
}

fn new_policy(body: &Fields, name: &str) -> Result<NewPolicy, ConsulError> {
    let given = body.text("Name")?;
    let name = if given.is_empty() { name.to_owned() } else { given };
    Ok(NewPolicy { name, description: body.text("Description")?, rules: body.text("Rules")? })
}

fn policy_answer(api: &Api, call: &Call, is_it: impl Fn(&AccessPolicyRecord) -> bool) -> Result<Answer, ConsulError> {
    let management = management();
    let (index, found) = api.mirror.read(|view| {
        let found = view.access.policies().find(|(record, _)| is_it(record)).map(|(record, revision)| policy(record, *revision));
        (view.access.revision(), found.or_else(|| is_it(&management).then(|| policy(&management, 0))))
    });
    let found = found.ok_or_else(|| ConsulError::not_found("ACL not found: there is no such policy"))?;
    Ok(Answer::json(call, &found)?.at(index))
}

/// The policy that is always there.
fn management() -> AccessPolicyRecord {
    let named = crate::acl::Kind::NAMED.map(|(word, _)| format!("{word}_prefix \"\" {{ policy = \"write\" }}\n"));
    let nameless = crate::acl::Kind::NAMELESS.map(|(word, _)| format!("{word} = \"write\"\n"));
    AccessPolicyRecord {
        id: MANAGEMENT.into(),
        name: GLOBAL_MANAGEMENT.into(),
        description: "Builtin Policy that grants unlimited access".into(),
        rules: named.concat() + &nameless.concat(),
        created_in: None,
    }
}

/// `GET /v1/acl/roles`
pub(super) async fn roles(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::Read, Resource::Acl)?;
    let (index, roles) = api.mirror.read(|view| {
        let wanted =
            |record: &AccessRoleRecord| call.text("policy").is_none_or(|id| record.links.policies.iter().any(|own| own == id));
        let roles: Vec<Value> =
            view.access.roles().filter(|(record, _)| wanted(record)).map(|stored| role(&view.access, stored)).collect();
        (view.access.revision(), roles)
    });
    Ok(Answer::json(&call, &roles)?.at(index))
}

/// `PUT /v1/acl/role`
pub(super) async fn create_role(State(api): Shared, call: Call, Json(body): Json) -> Result<Answer, ConsulError> {
    call.require(Access::Write, Resource::Acl)?;
    let id = api.accounts.set_role(None, new_role(&body, "")?, &call.author).await?;
    role_answer(&api, &call, |role| role.id == id)
}

/// `GET /v1/acl/role/{id}`
pub(super) async fn read_role(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::Read, Resource::Acl)?;
    let id = call.name_after("/v1/acl/role/", "role ID")?;
    role_answer(&api, &call, |role| role.id == id)
}

/// `GET /v1/acl/role/name/{name}`
pub(super) async fn named_role(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::Read, Resource::Acl)?;
    let name = call.name_after("/v1/acl/role/name/", "role name")?;
    role_answer(&api, &call, |role| role.name == name)
}

/// `PUT /v1/acl/role/{id}`
pub(super) async fn update_role(State(api): Shared, call: Call, Json(body): Json) -> Result<Answer, ConsulError> {
    call.require(Access::Write, Resource::Acl)?;
    let id = call.name_after("/v1/acl/role/", "role ID")?;
    let name = api.mirror.read(|view| view.access.role(&id).map(|(role, _)| role.name.clone())).unwrap_or_default();
    api.accounts.set_role(Some(&id), new_role(&body, &name)?, &call.author).await?;
    role_answer(&api, &call, |role| role.id == id)
}

/// `DELETE /v1/acl/role/{id}`
pub(super) async fn delete_role(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::Write, Resource::Acl)?;
    let id = call.name_after("/v1/acl/role/", "role ID")?;
    api.accounts.delete_role(&id, &call.author).await?;
    Answer::json(&call, &true)
}

fn new_role(body: &Fields, name: &str) -> Result<NewRole, ConsulError> {
    let given = body.text("Name")?;
    let name = if given.is_empty() { name.to_owned() } else { given };
    let service = |value: &Value| {
        let name = value.as_str().unwrap_or_default();
        name.parse::<ServiceName>().map_err(|error| ConsulError::bad_request(format!("Invalid Role: Services: {error}")))
    };
    let services = body.list("Services")?.iter().map(service).collect::<Result<_, _>>()?;
    Ok(NewRole { name, description: body.text("Description")?, links: links(body)?, services })
}

fn role_answer(api: &Api, call: &Call, is_it: impl Fn(&AccessRoleRecord) -> bool) -> Result<Answer, ConsulError> {
    let (index, found) = api.mirror.read(|view| {
        let found = view.access.roles().find(|(record, _)| is_it(record));
        (view.access.revision(), found.map(|stored| role(&view.access, stored)))
    });
    let found = found.ok_or_else(|| ConsulError::not_found("ACL not found: there is no such role"))?;
    Ok(Answer::json(call, &found)?.at(index))
}

fn links(body: &Fields) -> Result<NewLinks, ConsulError> {
    let objects = |name: &str| body.list(name)?.iter().cloned().map(Fields::of).collect::<Result<Vec<_>, _>>();
    let named = |fields: &Fields| Ok(Named { id: fields.text("ID")?, name: fields.text("Name")? });
    let all_named = |name: &str| objects(name)?.iter().map(named).collect::<Result<Vec<_>, ConsulError>>();
    if !body.list("TemplatedPolicies")?.is_empty() {
        return Err(ConsulError::absent("There are no templated policies; write the rules out."));
    }
    let service = |fields: &Fields| Ok(ServiceIdentity { service: fields.text("ServiceName")? });
    let node = |fields: &Fields| Ok(NodeIdentity { node: fields.text("NodeName")?, datacenter: fields.text("Datacenter")? });
    Ok(NewLinks {
        policies: all_named("Policies")?,
        roles: all_named("Roles")?,
        service_identities: objects("ServiceIdentities")?.iter().map(service).collect::<Result<_, ConsulError>>()?,
        node_identities: objects("NodeIdentities")?.iter().map(node).collect::<Result<_, ConsulError>>()?,
    })
}

fn token(access: &AccessView, (record, revision): &(AccessTokenRecord, u64), secret: &str) -> Value {
    let mut token = json!({
        "AccessorID": record.accessor,
        "SecretID": secret,
        "Description": record.description,
        "Local": record.local,
        "CreateTime": rfc3339(record.created_at),
    });
    if let Some(end) = record.expires_at {
        token["ExpirationTime"] = rfc3339(end).into();
    }
    with_links(&mut token, access, &record.links);
    with_indexes(&mut token, record, record.created_in, *revision);
    token
}

fn role(access: &AccessView, (record, revision): &(AccessRoleRecord, u64)) -> Value {
    let mut role = json!({ "ID": record.id, "Name": record.name, "Description": record.description });
    with_links(&mut role, access, &record.links);
    if !record.services.is_empty() {
        role["Services"] = json!(record.services);
    }
    with_indexes(&mut role, record, record.created_in, *revision);
    role
}

fn policy(record: &AccessPolicyRecord, revision: u64) -> Value {
    let mut policy = json!({ "ID": record.id, "Name": record.name, "Description": record.description, "Rules": record.rules, "Datacenters": null });
    with_indexes(&mut policy, record, record.created_in, revision);
    policy
}

fn with_links(object: &mut Value, access: &AccessView, links: &Links) {
    let policy = |id: &String| match access.policy(id) {
        _ if id == MANAGEMENT => Some(json!({ "ID": id, "Name": GLOBAL_MANAGEMENT })),
        Some((policy, _)) => Some(json!({ "ID": id, "Name": policy.name })),
        None => None,
    };
    let policies: Vec<Value> = links.policies.iter().filter_map(policy).collect();
    let role = |id: &String| access.role(id).map(|(role, _)| json!({ "ID": id, "Name": role.name }));
    let roles: Vec<Value> = links.roles.iter().filter_map(role).collect();
    let services = links.service_identities.iter().map(|own| json!({ "ServiceName": own.service })).collect();
    let nodes = links.node_identities.iter().map(|own| json!({ "NodeName": own.node, "Datacenter": own.datacenter })).collect();
    for (name, list) in [("Policies", policies), ("Roles", roles), ("ServiceIdentities", services), ("NodeIdentities", nodes)] {
        if !list.is_empty() {
            object[name] = Value::Array(list);
        }
    }
}

fn with_indexes(object: &mut Value, record: &impl Serialize, created_in: Option<u64>, revision: u64) {
    let content = serde_json::to_vec(record).unwrap_or_default();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &content);
    object["Hash"] = BASE64.encode(digest.as_ref()).into();
    object["CreateIndex"] = created_in.unwrap_or(revision).into();
    object["ModifyIndex"] = revision.into();
}
