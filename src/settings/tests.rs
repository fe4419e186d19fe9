use super::*;
use crate::cli::Command;
use crate::cli::control::ControlArgs;
use crate::cli::proxy::ProxyArgs;

fn load_with(line: &str, variables: &[(&str, &str)]) -> Result<Loaded, LoadError> {
    let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
    let lookup = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
    load(&words, &lookup)
}

fn control(line: &str, variables: &[(&str, &str)]) -> ControlArgs {
    match load_with(line, variables).unwrap().cli.command {
        Command::Control(args) => args,
        other => panic!("{other:?}"),
    }
}

fn proxy(line: &str, variables: &[(&str, &str)]) -> ProxyArgs {
    match load_with(line, variables).unwrap().cli.command {
        Command::Proxy(args) => args,
        Command::Run(args) => args.proxy,
        other => panic!("{other:?}"),
    }
}

fn refusal(line: &str, variables: &[(&str, &str)]) -> String {
    match load_with(line, variables).unwrap_err() {
        LoadError::Layer(failure) => failure.to_string(),
        LoadError::Usage(error) => format!("usage: {error}"),
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn the_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let file = file("http: 127.0.0.1:1\ngrpc: 127.0.0.1:2\nsvid-ttl: 1h\n");
    let line = format!("meshctl control --config {} --http 127.0.0.1:9", file.path().display());
    let args = control(&line, &[("POSTERN_CONTROL_HTTP", "127.0.0.1:5"), ("POSTERN_CONTROL_GRPC", "127.0.0.1:6")]);
    assert_eq!(args.http.to_string(), "127.0.0.1:9");
    assert_eq!(args.grpc.to_string(), "127.0.0.1:6");
    assert_eq!(args.svid_ttl.as_secs(), 3_600);
    assert_eq!(args.renew_grace.as_secs(), 72 * 3_600);
}

#[test]
fn the_file_can_be_named_by_the_environment_and_gives_what_is_required() {
    let file = file("service: web\nupstream: {db: 5432, 'api:grpc': 7001}\nlocal: 8080\nprint-addresses: true\n");
    let args = proxy("meshctl proxy", &[("POSTERN_PROXY_CONFIG", file.path().to_str().unwrap())]);
    assert_eq!(args.service.unwrap().as_str(), "web");
    assert_eq!(args.upstream.len(), 2);
    assert_eq!(args.local.len(), 1);
    assert!(args.print_addresses);
}

#[test]
fn a_repeated_flag_is_comma_separated_in_the_environment() {
    let args = proxy(
        "meshctl proxy --service web",
        &[
            ("POSTERN_PROXY_UPSTREAM", "db=5432,api=7001"),
            ("POSTERN_PROXY_CONTROL", "a:1,b:2"),
            ("POSTERN_PROXY_PRINT_ADDRESSES", "1"),
        ],
    );
    assert_eq!(args.upstream.len(), 2);
    assert_eq!(args.control.len(), 2);
    assert!(args.print_addresses);
}

#[test]
fn a_comma_in_a_repeated_flag_is_left_alone() {
    let args = proxy("meshctl proxy --service web --meta note=a,b --control a:1,b:2", &[]);
    assert_eq!(args.meta[0].value, "a,b");
    assert_eq!(args.control.len(), 2);
}

#[test]
fn run_reads_its_own_variables() {
    let args = proxy("meshctl run -- true", &[("POSTERN_RUN_SERVICE", "web"), ("POSTERN_PROXY_SERVICE", "api")]);
    assert_eq!(args.service.unwrap().as_str(), "web");
}

#[test]
fn an_unknown_key_is_refused_and_the_nearest_is_named() {
    let file = file("svid_tll: 1h\n");
    let text = refusal(&format!("meshctl control --config {}", file.path().display()), &[]);
    assert!(text.contains("svid_tll") && text.contains("\"svid-ttl\""), "{text}");
}

#[test]
fn a_file_that_is_missing_broken_or_has_a_key_twice_is_refused_by_name() {
    for bad in [file("http: [1"), file("http: '1'\nhttp: '2'\n"), file("- http\n"), file("http: [a, b]\n")] {
        let text = refusal(&format!("meshctl control --config {}", bad.path().display()), &[]);
        assert!(text.contains(bad.path().to_str().unwrap()), "{text}");
    }
    assert!(refusal("meshctl control --config /nowhere/x.yaml", &[]).contains("/nowhere/x.yaml"));
}

#[test]
fn a_value_that_is_not_valid_is_told_with_its_place() {
    let file = file("svid-ttl: 90\n");
    let text = refusal(&format!("meshctl control --config {}", file.path().display()), &[]);
    assert!(text.contains(file.path().to_str().unwrap()) && text.contains("svid-ttl"), "{text}");
    let text = refusal("meshctl control", &[("POSTERN_CONTROL_HTTP", "nonsense")]);
    assert!(text.starts_with("POSTERN_CONTROL_HTTP: "), "{text}");
}

#[test]
fn a_token_on_the_line_silences_a_token_file_below() {
    let args = proxy("meshctl proxy --service web --token t", &[("POSTERN_PROXY_TOKEN_FILE", "/x")]);
    assert_eq!((args.token.as_deref(), args.token_file), (Some("t"), None));
    let text = refusal("meshctl proxy --service web", &[("POSTERN_PROXY_TOKEN", "t"), ("POSTERN_PROXY_TOKEN_FILE", "/x")]);
    assert!(text.contains("both given"), "{text}");
}

#[test]
fn the_data_directory_has_a_variable_for_all_and_one_of_its_own() {
    let both = [("POSTERN_DATA_DIR", "/all"), ("POSTERN_CONTROL_DATA_DIR", "/own")];
    assert_eq!(control("meshctl control", &both[..1]).data_dir.unwrap(), Path::new("/all"));
    assert_eq!(control("meshctl control", &both).data_dir.unwrap(), Path::new("/own"));
}

#[test]
fn what_is_required_and_nowhere_given_is_named() {
    let text = refusal("meshctl proxy", &[]);
    assert!(text.starts_with("usage:") && text.contains("--service"), "{text}");
}

#[test]
fn the_values_in_effect_show_every_layer() {
    let loaded = load_with("meshctl control --http 1", &[("POSTERN_CONTROL_GRPC", "2")]).unwrap();
    assert_eq!(loaded.values["http"], ["1"]);
    assert_eq!(loaded.values["grpc"], ["2"]);
    assert_eq!(loaded.values["svid-ttl"], ["24h"]);
}
