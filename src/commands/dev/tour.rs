//! `meshctl dev --tour`: what a mesh does, played with the real commands. Each step is checked; the tour is done only
//! when every one showed what it should.

use std::process::Stdio;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::Incoming;

use postern_api::http::Intentions;

use super::mesh::Mesh;
use super::process::clean;
use crate::commands::demo_service::ask;
use crate::commands::done;
use crate::outcome::{Failure, Outcome};
use crate::terminal;

/// How long a step may take to show what it should.
const PATIENCE: Duration = Duration::from_secs(10);

/// The file of what is suggested, in the mesh's directory, where the commands run.
const SUGGESTED: &str = "suggested.yaml";

/// Plays the tour.
pub async fn play(mesh: &Mesh) -> Outcome {
    let web = mesh.web.clone().ok_or_else(|| Failure::new("the tour needs its services"))?;
    let tour = Tour { mesh, web };
    say("web calls api, and api calls db, each through its own sidecar. Nothing is allowed yet, so nothing goes through:")?;
    tour.request_until(StatusCode::BAD_GATEWAY, "did not answer").await?;
    say("Who calls whom? Let everything through for a while, and watch:")?;
    tour.command("intention default audit", 0, "in force on").await?;
    tour.request_until(StatusCode::OK, "db says hello").await?;
    say("From what was seen, the intentions that allow it and nothing else:")?;
    tour.suggested().await?;
    say("What would change if they were enforced? No call that was seen would be cut:")?;
    tour.command(&format!("intention plan -f {SUGGESTED}"), 1, "no call that was seen").await?;
    tour.command(&format!("intention apply -f {SUGGESTED} --yes"), 0, "in force on").await?;
    say("Everything else is denied now, and the whole chain answers:")?;
    tour.request_until(StatusCode::OK, "db says hello").await?;
    let good = tour.revision().await?;
    say("Open a stream through the chain, and deny web -> api while it runs:")?;
    let mut stream = tour.open_stream().await?;
    let watch = async {
        let died = read_to_its_end(&mut stream).await?;
        Ok::<_, Failure>(died)
    };
    let deny = async {
        let asked = Instant::now();
        tour.command("intention deny web api", 0, "in force on").await?;
        Ok::<_, Failure>(asked)
    };
    let (died, asked) = tokio::join!(watch, deny);
    let took = died?.saturating_duration_since(asked?);
    say(&format!("The open stream was closed; from pressing enter to its end it took {} ms.", took.as_millis()))?;
    say("New calls are denied as well:")?;
    tour.request_until(StatusCode::BAD_GATEWAY, "api did not answer").await?;
    say("And a denial explains itself:")?;
    tour.command("intention explain web api", 0, "web -> api (deny)").await?;
    tour.command("intention check web api", 1, "denied").await?;
    say("That was a mistake. Who did what, and back to where it was:")?;
    tour.command("intention history --limit 3", 0, "web -> api").await?;
    tour.command(&format!("intention rollback {good} --yes"), 0, "in force on").await?;
    tour.request_until(StatusCode::OK, "db says hello").await?;
    say("That was the tour; every step showed what it should. `meshctl dev` starts the same mesh to try it yourself.")?;
    done()
}

fn say(text: &str) -> Result<(), Failure> {
    terminal::print(&format!("\n{text}\n"))
}

fn show(text: &str) -> Result<(), Failure> {
    terminal::print(&text.lines().map(|line| format!("    {line}\n")).collect::<String>())
}

struct Tour<'a> {
    mesh: &'a Mesh,
    web: String,
}

impl Tour<'_> {
    /// Runs `meshctl COMMAND` as a user would, and checks its exit code and what it says.
    async fn command(&self, command: &str, code: i32, expected: &str) -> Result<(), Failure> {
        show(&format!("$ meshctl {command}"))?;
        let output = self.run(command).await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        show(&text)?;
        if output.status.code() != Some(code) || !text.contains(expected) {
            return Err(Failure::new(format!(
                "the tour broke off: `meshctl {command}` should have ended with {code} and said {expected:?}, it ended with {}",
                output.status
            )));
        }
        Ok(())
    }

    /// Asks for suggestions until both calls are among them, and keeps the file: sidecars tell what they saw every few seconds.
    async fn suggested(&self) -> Result<(), Failure> {
        let started = Instant::now();
        show(&format!("$ meshctl intention suggest > {SUGGESTED}"))?;
        let text = loop {
            let text = self.output("intention suggest").await?;
            if ["source: web, destination: api", "source: api, destination: db"].iter().all(|pair| text.contains(pair)) {
                break text;
            }
            if started.elapsed() > PATIENCE {
                return Err(Failure::new(format!("the tour broke off: the calls should have been seen by now\n{text}")));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        show(&text)?;
        let path = self.mesh.directory.join(SUGGESTED);
        std::fs::write(&path, text).map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
    }

    /// The revision that intentions are at.
    async fn revision(&self) -> Result<u64, Failure> {
        let all = self.output("intention list -o json").await?;
        let all: Intentions =
            serde_json::from_str(&all).map_err(|error| Failure::new(format!("`meshctl intention list` is not JSON: {error}")))?;
        Ok(all.revision)
    }

    /// What `meshctl COMMAND` prints.
    async fn output(&self, command: &str) -> Result<String, Failure> {
        let output = self.run(command).await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::new(format!("the tour broke off: `meshctl {command}` ended with {}: {said}", output.status)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    async fn run(&self, command: &str) -> Result<std::process::Output, Failure> {
        let words: Vec<String> = command.split(' ').map(String::from).collect();
        let failed = |error: std::io::Error| Failure::new(format!("cannot run `meshctl {command}`: {error}"));
        clean(&words)?
            .env("POSTERN_DATA_DIR", std::path::absolute(&self.mesh.directory).map_err(failed)?)
            .current_dir(&self.mesh.directory)
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(failed)
    }

    /// Asks web until the answer is what it should be: a change is in force at once, a new instance within a moment.
    async fn request_until(&self, status: StatusCode, expected: &str) -> Result<(), Failure> {
        let started = Instant::now();
        show(&format!("$ curl http://{}/", self.web))?;
        loop {
            let seen = self.request().await;
            let is_expected = matches!(&seen, Ok((seen_status, text)) if *seen_status == status && text.contains(expected));
            if is_expected || started.elapsed() > PATIENCE {
                let text = match seen {
                    Ok((seen_status, text)) => format!("{text}({seen_status})"),
                    Err(failure) => failure.to_string(),
                };
                show(&text)?;
                if is_expected {
                    return Ok(());
                }
                return Err(Failure::new(format!(
                    "the tour broke off: http://{}/ should have answered {status} with {expected:?}",
                    self.web
                )));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn request(&self) -> Result<(StatusCode, String), Failure> {
        let failed = |error: String| Failure::new(format!("web did not answer: {error}"));
        let answer = ask(&self.web, "/").await.map_err(|error| failed(error.to_string()))?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|error| failed(error.to_string()))?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// Opens a stream and sees that it runs.
    async fn open_stream(&self) -> Result<Incoming, Failure> {
        let broken = |why: String| Failure::new(format!("the tour broke off: the stream did not run: {why}"));
        show(&format!("$ curl -N http://{}/stream", self.web))?;
        let answer = ask(&self.web, "/stream").await.map_err(|error| broken(error.to_string()))?;
        if !answer.status().is_success() {
            return Err(broken(answer.status().to_string()));
        }
        let mut body = answer.into_body();
        for _ in 0..3 {
            let frame = tokio::time::timeout(PATIENCE, body.frame()).await.map_err(|_| broken("it is silent".into()))?;
            let frame = frame.ok_or_else(|| broken("it ended".into()))?.map_err(|error| broken(error.to_string()))?;
            show(&String::from_utf8_lossy(frame.data_ref().map_or(&[][..], |data| data)))?;
        }
        Ok(body)
    }
}

/// Reads until the stream ends, and says when that was.
async fn read_to_its_end(body: &mut Incoming) -> Result<Instant, Failure> {
    let end = async { while let Some(Ok(_)) = body.frame().await {} };
    tokio::time::timeout(PATIENCE, end)
        .await
        .map_err(|_| Failure::new("the tour broke off: the stream goes on although it is denied"))?;
    Ok(Instant::now())
}
