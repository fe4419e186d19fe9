//! The first start makes the mesh; every later one finds it as it was made.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use postern_names::{Datacenter, TrustDomain};
use serde_json::json;

use super::{ControlError, brought_ca};
use crate::audit::AuditEntry;
use crate::identity::check_brought;
use crate::records::{self, ClusterRecord, DefaultRecord};
use crate::seal::{SealError, SealKey};
use crate::settings::Settings;
use crate::store::{Compare, Op, Store, Txn};

/// Makes the mesh in an empty store, or checks that the settings fit the one that is there. Gives the seal key.
pub(super) async fn found(store: &Arc<dyn Store>, settings: &Settings) -> Result<SealKey, ControlError> {
    let key = records::cluster_key();
    let stored = store.get(&key).await?;
    if let Some(kv) = stored {
        let cluster: ClusterRecord =
            records::decode(&key, &kv.value).map_err(|error| ControlError::Internal(error.to_string()))?;
        fits(settings, &cluster)?;
        return open_seal_key(settings);
    }
    let record = new_cluster(settings)?;
    // A CA that cannot be used is refused before anything is made: the next start may choose other names.
    if let Some(ca) = brought_ca(settings) {
        check_brought(&ca, &record.trust_domain, &record.datacenter, record.created_at)?;
    }
    // Before the store: a store without its seal key would never start again.
    let seal = new_seal_key(settings)?;
    write_cluster(store, settings, record).await?;
    Ok(seal)
}

fn fits(settings: &Settings, cluster: &ClusterRecord) -> Result<(), ControlError> {
    let differs = |flag, given: String, stored: String| Err(ControlError::Fixed { flag, given, stored });
    if let Some(given) = &settings.trust_domain
        && *given != cluster.trust_domain
    {
        return differs("--trust-domain", given.to_string(), cluster.trust_domain.to_string());
    }
    if let Some(given) = &settings.datacenter
        && *given != cluster.datacenter
    {
        return differs("--datacenter", given.to_string(), cluster.datacenter.to_string());
    }
    Ok(())
}

fn new_cluster(settings: &Settings) -> Result<ClusterRecord, ControlError> {
    let internal = |error: String| ControlError::Internal(error);
    let cluster_id = uuid::Uuid::new_v4().to_string();
    let trust_domain: TrustDomain = match &settings.trust_domain {
        Some(given) => given.clone(),
        None => format!("{}.postern", uuid::Uuid::new_v4()).parse().map_err(|error| internal(format!("{error}")))?,
    };
    let datacenter: Datacenter = match &settings.datacenter {
        Some(given) => given.clone(),
        None => "dc1".parse().map_err(|error| internal(format!("{error}")))?,
    };
    Ok(ClusterRecord { cluster_id, trust_domain, datacenter, epoch: 1, created_at: SystemTime::now() })
}

async fn write_cluster(store: &Arc<dyn Store>, settings: &Settings, record: ClusterRecord) -> Result<(), ControlError> {
    let internal = |error: String| ControlError::Internal(error);
    let details = json!({ "cluster_id": record.cluster_id, "trust_domain": record.trust_domain, "datacenter": record.datacenter, "default": settings.default });
    let entry = AuditEntry {
        at: record.created_at,
        who: "control-plane".into(),
        from: "local".into(),
        what: "mesh.create".into(),
        details,
        reason: None,
    };
    let encode_cluster = records::encode(&record).map_err(|error| internal(error.to_string()))?;
    let encode_default =
        records::encode(&DefaultRecord { policy: settings.default }).map_err(|error| internal(error.to_string()))?;
    let key = records::cluster_key();
    let txn = Txn::new()
        .when(Compare::absent(key.clone()))
        .then(Op::put(key, encode_cluster))
        .then(Op::put(records::default_key(), encode_default))
        .then(entry.op());
    if !store.txn(txn).await?.succeeded {
        return Err(internal("another control plane made this store at the same moment; start again".into()));
    }
    tracing::info!(trust_domain = %record.trust_domain, datacenter = %record.datacenter, default = %settings.default, "a new mesh was made");
    Ok(())
}

fn open_seal_key(settings: &Settings) -> Result<SealKey, ControlError> {
    if settings.seal_in_memory {
        return Ok(SealKey::in_memory());
    }
    Ok(SealKey::load(&seal_key_path(settings)?)?)
}

fn new_seal_key(settings: &Settings) -> Result<SealKey, ControlError> {
    if settings.seal_in_memory {
        return Ok(SealKey::in_memory());
    }
    let path = seal_key_path(settings)?;
    match SealKey::load(&path) {
        Err(SealError::Missing { .. }) => {}
        loaded => return Ok(loaded?),
    }
    if let Some(parent) = path.parent() {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.map_err(|source| SealError::Io { what: "make the directory of", path: path.clone(), source })?;
    }
    let key = SealKey::create_new(&path)?;
    tracing::info!(path = %path.display(), "made the seal key of this store: keep a copy of it apart from the data directory");
    Ok(key)
}

/// Never in the data directory: a copy of that must open nothing.
fn seal_key_path(settings: &Settings) -> Result<PathBuf, ControlError> {
    let path = match &settings.seal_key_file {
        Some(path) => path.clone(),
        None => default_seal_key_path()?,
    };
    let inside = resolved(&path).starts_with(resolved(&settings.data_dir));
    if inside {
        let why = format!(
            "the seal key {} is inside it, so that a copy of it would open every key; give --seal-key-file elsewhere",
            path.display()
        );
        return Err(ControlError::DataDir { path: settings.data_dir.clone(), why });
    }
    Ok(path)
}

/// The path without links as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if parent != Path::new("") => resolved(parent).join(name),
        _ => std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
    }
}

fn default_seal_key_path() -> Result<PathBuf, ControlError> {
    if nix::unistd::geteuid().is_root() {
        return Ok(PathBuf::from("/etc/postern/seal.key"));
    }
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
    let config = config.ok_or_else(|| {
        ControlError::Internal(
            "there is no place for the seal key: neither XDG_CONFIG_HOME nor HOME is set; give --seal-key-file".into(),
        )
    })?;
    Ok(config.join("postern/seal.key"))
}
