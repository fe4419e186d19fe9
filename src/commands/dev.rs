//! `meshctl dev`: a mesh on this machine, to try it. Everything that it starts is a process of this same binary and
//! ends with it; everything listens on loopback.

mod mesh;
mod process;
mod tour;

use std::path::{Path, PathBuf};

use super::done;
use super::serving::Stop;
use crate::cli::plain::DevArgs;
use crate::client::Finder;
use crate::data_dir::{self, process_environment};
use crate::outcome::{Failure, Outcome};
use crate::terminal;
use mesh::Mesh;

/// Marks data that an earlier `dev --keep` wanted to keep.
const KEPT: &str = ".kept";

/// Starts the mesh, shows what to try, and takes everything down again.
pub fn dev(args: DevArgs) -> Outcome {
    let data_dir = data_dir::find(&process_environment)?;
    super::runtime()?.block_on(async {
        let directory = Directory::prepare(&data_dir, args.keep).await?;
        let result = live(&args, &data_dir, &directory).await;
        directory.leave();
        result
    })
}

async fn live(args: &DevArgs, data_dir: &Path, directory: &Directory) -> Outcome {
    let mut stop = Stop::listen(false)?;
    let mut mesh = Mesh::new(&directory.path, &args.log, !directory.is_kept);
    let lived = tokio::select! {
        lived = play(args, data_dir, &mut mesh, directory.is_kept) => lived,
        _ = stop.next() => done(),
    };
    let hurry = async {
        stop.next().await;
    };
    mesh.stop(hurry).await;
    lived
}

async fn play(args: &DevArgs, data_dir: &Path, mesh: &mut Mesh, is_kept: bool) -> Outcome {
    mesh.start_control().await?;
    mesh.let_everyone_read().await?;
    if !args.bare {
        mesh.start_services().await?;
    }
    let prefix = prefix(data_dir, &mesh.directory);
    if args.tour {
        return tour::play(mesh).await;
    }
    if !args.bare {
        mesh.allow("web", "api").await?;
        mesh.allow("api", "db").await?;
    }
    terminal::print(&next_steps(mesh, &prefix, is_kept))?;
    Err(mesh.first_to_end().await)
}

/// What must stand before a command so that it finds this mesh in another shell.
fn prefix(data_dir: &Path, directory: &Path) -> String {
    let set = process_environment("POSTERN_DATA_DIR").is_some();
    let place = match (data_dir.join("http.sock").exists(), set) {
        (true, _) => directory,
        (false, true) => data_dir,
        (false, false) => return String::new(),
    };
    format!("POSTERN_DATA_DIR={} ", quoted(&place.display().to_string()))
}

fn next_steps(mesh: &Mesh, prefix: &str, is_kept: bool) -> String {
    let meshctl = format!("{prefix}{}", quoted(&invoked_as().display().to_string()));
    let mut text = format!(
        "The control plane is at http://{}, sidecars connect to {}. Logs are in {}.\n",
        mesh.http,
        mesh.grpc,
        mesh.logs().display()
    );
    let mut step = |what: &str, command: String| text.push_str(&format!("\n# {what}\n{command}\n"));
    if let Some(web) = &mesh.web {
        step("three services call each other, each through its own sidecar: web -> api -> db", format!("curl http://{web}/"));
        step("who may call whom", format!("{meshctl} intention list"));
        step("a stream stays open as long as it is allowed; leave it running", format!("curl -N http://{web}/stream"));
        step(
            "a deny closes what is open, within milliseconds",
            format!("{meshctl} intention deny web api --reason 'to see what happens'"),
        );
        step("every denial explains itself", format!("{meshctl} intention explain web api"));
        step("allow it for ten minutes", format!("{meshctl} intention allow web api --for 10m"));
        step("a service of your own that calls web: first it may", format!("{meshctl} intention allow shop web"));
        step(
            "then it does (without a token it makes its own, since you are the operator here)",
            format!(
                "{meshctl} run --service shop --control {} --state-dir {} --upstream web=127.0.0.1:0 -- sh -c 'curl -s http://$POSTERN_UPSTREAM_WEB/'",
                mesh.grpc,
                quoted(&mesh.directory.join("proxy/shop").display().to_string())
            ),
        );
    } else {
        step("allow a call", format!("{meshctl} intention allow shop web"));
        step("a token with which a process becomes a service", format!("{meshctl} token create --service web"));
        step(
            "a service with its sidecar",
            format!(
                "{meshctl} run --service web --control {} --state-dir {} --listen 127.0.0.1:0 --local 127.0.0.1:8000 -- python3 -m http.server --bind 127.0.0.1 8000",
                mesh.grpc,
                quoted(&mesh.directory.join("proxy/web").display().to_string())
            ),
        );
    }
    step("who is here", format!("{meshctl} status"));
    let after = if is_kept { "its data stay" } else { "its data go with it (--keep keeps them)" };
    text.push_str(&format!("\nCtrl-C ends it; {after}.\n"));
    text
}

/// The path of this binary as it was called, so that a pasted command calls the same.
fn invoked_as() -> PathBuf {
    let name = std::env::args_os().next().map(PathBuf::from);
    let spelled_out = name.filter(|name| name.components().count() > 1).and_then(|name| std::path::absolute(name).ok());
    spelled_out.or_else(|| std::env::current_exe().ok()).unwrap_or_else(|| PathBuf::from("meshctl"))
}

/// For a shell: as it is where nothing in it is special, else in single quotes.
fn quoted(text: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'-' | b'_' | b':' | b'=' | b',' | b'+' | b'@');
    if !text.is_empty() && text.bytes().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// `<data directory>/dev`.
struct Directory {
    path: PathBuf,
    is_kept: bool,
}

impl Directory {
    /// Makes it, empty unless it is to be kept or was kept.
    async fn prepare(data_dir: &Path, keep: bool) -> Result<Self, Failure> {
        let path = data_dir.join("dev");
        let failed = |action: &str, error: std::io::Error| {
            Failure::new(format!("cannot {action} {}: {error}", path.display())).cure("POSTERN_DATA_DIR names another place")
        };
        if path.join("http.sock").exists() && Finder::socket(path.join("http.sock")).connect().await.is_ok() {
            return Err(Failure::new(format!("`meshctl dev` runs already with {}", path.display()))
                .cure("use that one, or give this one another POSTERN_DATA_DIR"));
        }
        let is_kept = keep || path.join(KEPT).exists();
        if !is_kept && path.exists() {
            std::fs::remove_dir_all(&path).map_err(|error| failed("empty", error))?;
        }
        std::fs::create_dir_all(path.join("logs")).map_err(|error| failed("make", error))?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .map_err(|error| failed("keep other users out of", error))?;
        if is_kept {
            std::fs::write(path.join(KEPT), "").map_err(|error| failed("write in", error))?;
        }
        Ok(Self { path, is_kept })
    }

    fn leave(self) {
        if self.is_kept {
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            terminal::note(&format!("could not remove {}: {error}", self.path.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_a_space_can_be_pasted() {
        assert_eq!(quoted("/usr/bin/meshctl"), "/usr/bin/meshctl");
        assert_eq!(quoted("/my dir/it's"), r"'/my dir/it'\''s'");
    }

    #[tokio::test]
    async fn data_stay_only_when_they_are_to_be_kept() {
        let data = tempfile::tempdir().unwrap();
        let directory = Directory::prepare(data.path(), false).await.unwrap();
        std::fs::write(directory.path.join("store"), "x").unwrap();
        directory.leave();
        assert!(!data.path().join("dev").exists());
        let directory = Directory::prepare(data.path(), true).await.unwrap();
        std::fs::write(directory.path.join("store"), "x").unwrap();
        directory.leave();
        let again = Directory::prepare(data.path(), false).await.unwrap();
        assert!(again.is_kept && again.path.join("store").exists());
    }
}
