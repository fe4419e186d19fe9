//! The page at `/ui/`: plain HTML, CSS and ES modules, compiled into the binary and served as they are.
//!
//! The page needs no credential, its data do: it asks the HTTP API with the token that somebody types into it. What is
//! served is a fixed table, so no path leads anywhere else. Everything is `no-store`, as all answers are: it is small, and
//! after an update no browser shows an old half of it.

use axum::Router;
use axum::extract::{Path, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::http::ApiError;

/// What the page may do: nothing but what came with it, and the API that served it. No script, style, font or image of
/// elsewhere, no form that is sent anywhere, no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// One file of the page.
struct File {
    /// Below `/ui/`.
    path: &'static str,
    content: &'static str,
}

impl File {
    fn content_type(&self) -> &'static str {
        match self.path.rsplit('.').next() {
            Some("html") => "text/html; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            _ => "application/octet-stream",
        }
    }
}

macro_rules! files {
    ($($path:literal,)*) => {
        &[$(File { path: $path, content: include_str!(concat!("page/", $path)) },)*]
    };
}

/// All of the page.
const FILES: &[File] = files![
    "index.html",
    "allow.js",
    "api.js",
    "app.js",
    "dom.js",
    "edges.js",
    "explain.js",
    "format.js",
    "graph.css",
    "graph/draw.js",
    "graph/keys.js",
    "graph/layers.js",
    "graph/layout.js",
    "graph/model.js",
    "graph/order.js",
    "graph/paths.js",
    "graph/viewport.js",
    "icon.svg",
    "intention-form.js",
    "live.js",
    "parts.js",
    "plan.js",
    "router.js",
    "seen.js",
    "style.css",
    "suggest.js",
    "views/certificates.js",
    "views/control.js",
    "views/graph-panel.js",
    "views/graph.js",
    "views/history.js",
    "views/intentions.js",
    "views/kv.js",
    "views/live.js",
    "views/login.js",
    "views/service.js",
    "views/services.js",
];

/// `/ui/` with its files, and the way there from `/`.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(root))
        .route("/ui", get(async || moved()))
        .route("/ui/", get(async || served("index.html")))
        .route("/ui/{*path}", get(async |Path(path): Path<String>| served(&path)))
}

/// A browser goes to the page; a program is told that nothing is here.
async fn root(headers: HeaderMap, request: Request) -> Response {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    if accepted.flat_map(|value| value.split(',')).any(|kind| kind.trim().starts_with("text/html")) {
        return moved();
    }
    crate::http::unknown_route(request).await
}

fn moved() -> Response {
    (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "/ui/")]).into_response()
}

fn served(path: &str) -> Response {
    let Some(file) = FILES.iter().find(|file| file.path == path) else {
        return ApiError::not_found("the page has no such file").hint("the page is at /ui/").into_response();
    };
    let mut response = ([(header::CONTENT_TYPE, file.content_type())], file.content).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path as FilePath, PathBuf};

    use axum::body::Body;
    use tower::ServiceExt;

    use super::*;

    fn on_disk(directory: &FilePath, below: &FilePath) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(on_disk(&path, below));
            } else {
                found.insert(path.strip_prefix(below).unwrap().to_str().unwrap().to_owned());
            }
        }
        found
    }

    #[test]
    fn every_file_of_the_page_is_served_and_nothing_else() {
        let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/ui/page");
        let listed: BTreeSet<String> = FILES.iter().map(|file| file.path.to_owned()).collect();
        assert_eq!(on_disk(&page, &page), listed);
        assert!(FILES.iter().all(|file| file.content_type() != "application/octet-stream"));
    }

    #[test]
    fn every_module_is_asked_for_at_once_and_not_when_another_names_it() {
        let index = served_text("index.html");
        for file in FILES.iter().filter(|file| file.path.ends_with(".js")) {
            let path = file.path;
            let preload = format!("<link rel=\"modulepreload\" href=\"{path}\">");
            let script = format!("<script type=\"module\" src=\"{path}\">");
            assert!(index.contains(&preload) || index.contains(&script), "{path}");
        }
    }

    #[test]
    fn the_page_makes_no_markup_of_data_and_keeps_nothing() {
        let scripts = FILES.iter().filter(|file| file.path.ends_with(".js"));
        for file in scripts {
            for word in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "localStorage",
                "sessionStorage",
                "document.cookie",
                "indexedDB",
                "serviceWorker",
            ] {
                assert!(!file.content.contains(word), "{} has {word}", file.path);
            }
        }
    }

    #[test]
    fn the_page_names_no_other_place() {
        for file in FILES {
            let addresses = file.content.match_indices("://").map(|(at, _)| &file.content[at.saturating_sub(6)..]);
            for address in addresses {
                assert!(address.contains("://www.w3.org/2000/svg"), "{}: {}", file.path, &address[..60.min(address.len())]);
            }
        }
    }

    fn served_text(path: &str) -> &'static str {
        FILES.iter().find(|file| file.path == path).unwrap().content
    }

    async fn asked(path: &str, accept: &str) -> (StatusCode, HeaderMap) {
        let request = Request::builder().uri(path).header("accept", accept).body(Body::empty()).unwrap();
        let response = routes::<()>().with_state(()).oneshot(request).await.unwrap();
        (response.status(), response.headers().clone())
    }

    #[tokio::test]
    async fn a_path_that_leads_elsewhere_is_not_found() {
        assert_eq!(asked("/ui/graph/draw.js", "*/*").await.0, StatusCode::OK);
        for path in [
            "/ui/../Cargo.toml",
            "/ui/%2e%2e/mod.rs",
            "/ui//index.html",
            "/ui/graph",
            "/ui/graph/",
            "/ui/graph/../app.js",
            "/ui/app.js%00",
            "/ui/..%2fmod.rs",
        ] {
            assert_eq!(asked(path, "text/html").await.0, StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[tokio::test]
    async fn every_file_comes_with_the_policy_and_its_type() {
        for (path, kind) in [
            ("/ui/", "text/html; charset=utf-8"),
            ("/ui/app.js", "text/javascript; charset=utf-8"),
            ("/ui/style.css", "text/css; charset=utf-8"),
        ] {
            let (status, headers) = asked(path, "*/*").await;
            assert_eq!((status, headers["content-type"].to_str().unwrap()), (StatusCode::OK, kind));
            let policy = headers["content-security-policy"].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
        }
    }

    #[tokio::test]
    async fn only_a_browser_is_sent_from_the_root_to_the_page() {
        let (status, headers) = asked("/", "text/html,application/xhtml+xml").await;
        assert_eq!((status, headers["location"].to_str().unwrap()), (StatusCode::TEMPORARY_REDIRECT, "/ui/"));
        for accept in ["*/*", "application/json"] {
            assert_eq!(asked("/", accept).await.0, StatusCode::NOT_FOUND, "{accept}");
        }
    }
}
