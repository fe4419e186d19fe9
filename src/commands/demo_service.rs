//! `meshctl demo-service`: a small HTTP service for `dev`. It answers with its name and what the service that it calls
//! answered, so that one request shows the whole chain; `/stream` goes on until it is ended.

use std::convert::Infallible;
use std::time::Duration;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use postern_names::Address;
use postern_names::ServiceName;
use tokio::net::{TcpListener, TcpStream};

use super::done;
use super::serving::Stop;
use crate::cli::plain::DemoServiceArgs;
use crate::outcome::{Failure, Outcome};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<BoxBody<Bytes, Error>>;

/// Between two lines of a stream.
const TICK: Duration = Duration::from_millis(200);

/// What it answers with, and whom it calls.
#[derive(Clone)]
struct Demo {
    name: ServiceName,
    /// The service that it calls, and where its sidecar listens for that.
    upstream: Option<(ServiceName, String)>,
}

/// Serves until it is told to stop.
pub fn demo_service(args: DemoServiceArgs) -> Outcome {
    super::runtime()?.block_on(serve(args))
}

async fn serve(args: DemoServiceArgs) -> Outcome {
    let upstream = args.calls.map(|service| {
        let variable = format!("POSTERN_UPSTREAM_{}", service.as_str().to_ascii_uppercase().replace('-', "_"));
        match std::env::var(&variable) {
            Ok(address) => Ok((service, address)),
            Err(_) => Err(Failure::new(format!("{variable} is not set")).cure("start it with `meshctl run --upstream`")),
        }
    });
    let demo = Demo { name: args.name, upstream: upstream.transpose()? };
    let Address::Tcp { host, port } = &args.listen else { return Err(Failure::new("a demo service listens on TCP")) };
    let listener = TcpListener::bind((host.as_str(), *port))
        .await
        .map_err(|error| Failure::new(format!("cannot listen on {}: {error}", args.listen)))?;
    let mut stop = Stop::listen(false)?;
    loop {
        let stream = tokio::select! {
            _ = stop.next() => return done(),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let demo = demo.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| demo.answer(request));
            // A caller that goes away in the middle is nothing to tell here.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

impl Demo {
    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Infallible> {
        Ok(match request.uri().path() {
            "/" => self.hello().await,
            "/stream" => self.stream().await,
            _ => text(StatusCode::NOT_FOUND, format!("{}: there are / and /stream\n", self.name)),
        })
    }

    async fn hello(&self) -> Answer {
        let own = format!("{} says hello\n", self.name);
        let Some((service, address)) = &self.upstream else { return text(StatusCode::OK, own) };
        match ask(address, "/").await {
            Ok(answer) => {
                let status = answer.status();
                match answer.into_body().collect().await {
                    Ok(body) => text(status, own + &indented(&String::from_utf8_lossy(&body.to_bytes()))),
                    Err(error) => self.failed(service, &error),
                }
            }
            Err(error) => self.failed(service, &*error),
        }
    }

    fn failed(&self, service: &ServiceName, error: &dyn std::error::Error) -> Answer {
        text(StatusCode::BAD_GATEWAY, format!("{} says hello\n  {service} did not answer: {error}\n", self.name))
    }

    /// Passes on what the next service streams; the last one ticks.
    async fn stream(&self) -> Answer {
        match &self.upstream {
            None => Response::new(Ticks::start(self.name.clone()).boxed()),
            Some((service, address)) => match ask(address, "/stream").await {
                Ok(answer) if answer.status().is_success() => Response::new(answer.into_body().map_err(Error::from).boxed()),
                Ok(answer) => text(answer.status(), format!("{service} answered {}\n", answer.status())),
                Err(error) => self.failed(service, &*error),
            },
        }
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

fn text(status: StatusCode, text: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed());
    *answer.status_mut() = status;
    answer
}

/// One request on a connection of its own.
pub async fn ask(address: &str, path: &str) -> Result<Response<Incoming>, Error> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(path).header(hyper::header::HOST, address).body(Full::<Bytes>::default())?;
    Ok(tokio::time::timeout(Duration::from_secs(5), sender.send_request(request)).await??)
}

/// A body that gives a line at every tick, for ever.
struct Ticks {
    name: ServiceName,
    count: u64,
    clock: tokio::time::Interval,
}

impl Ticks {
    fn start(name: ServiceName) -> Self {
        Self { name, count: 0, clock: tokio::time::interval(TICK) }
    }
}

impl Body for Ticks {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Error>>> {
        std::task::ready!(self.clock.poll_tick(context));
        self.count += 1;
        let line = format!("{} tick {}\n", self.name, self.count);
        std::task::Poll::Ready(Some(Ok(Frame::data(Bytes::from(line)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_service_passes_on_is_indented() {
        assert_eq!(indented("api says hello\n  db says hello\n"), "  api says hello\n    db says hello\n");
    }
}
