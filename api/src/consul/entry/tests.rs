use postern_intentions::{HeaderCriterion, QueryCriterion, TextMatch};
use postern_traffic::Period;
use postern_traffic::settings::{
    Balancer, HashOn, HeaderEdits, LocalityPreference, Percent, Policy, Redirect, RequestMatch, Resolver, Retries, RetryOn,
    RouteAction, SourceAddress, Subset, SubsetRef,
};
use proptest::prelude::*;

use super::*;

const SURROUNDINGS: Surroundings<'static> = Surroundings { otherwise: Action::Deny, datacenter: Some("dc1") };

fn read(value: &Value) -> Result<Entry, String> {
    let kind = Kind::parse(value["Kind"].as_str().unwrap()).unwrap();
    Entry::read(kind, value, SURROUNDINGS).map_err(|NotCarried(why)| why)
}

/// The entry that its settings are written as, without what the store adds.
fn again(value: &Value) -> Value {
    match read(value).unwrap_or_else(|why| panic!("{value}: {why}")) {
        Entry::Settings { service, part } => {
            let kind = part.kind();
            let mut settings = ServiceSettings::of(service);
            if kind != Kind::ServiceResolver {
                let meta = [("version".to_owned(), "1".to_owned())].into();
                settings.resolver.subsets.insert("v1".into(), Subset { meta });
            }
            part.set(&mut settings);
            settings.validate().unwrap_or_else(|faults| panic!("{value}: {faults:?}"));
            bare(write(kind, &settings, 7).unwrap())
        }
        Entry::Intentions { destination, intentions } => {
            let intentions: Vec<&Intention> = intentions.iter().collect();
            bare(write_intentions(&destination, &intentions, Action::Deny, 7).unwrap())
        }
        Entry::ProxyDefaults => bare(proxy_defaults()),
    }
}

fn bare(mut entry: Value) -> Value {
    for name in ["CreateIndex", "ModifyIndex"] {
        assert!(entry.as_object_mut().unwrap().remove(name).is_some());
    }
    entry
}

fn whole() -> Vec<Value> {
    vec![
        json!({ "Kind": "service-defaults", "Name": "api", "Protocol": "grpc" }),
        json!({ "Kind": "service-defaults", "Name": "api", "RateLimits": { "InstanceLevel": { "RequestsPerSecond": 100, "RequestsMaxBurst": 20 } } }),
        json!({ "Kind": "service-router", "Name": "api", "Routes": [
            { "Match": { "HTTP": { "PathPrefix": "/v1/", "Methods": ["GET", "PUT"], "Header": [
                { "Name": "x-debug", "Present": true, "Invert": true }, { "Name": "x-team", "Exact": "a" }, { "Name": "x-b", "Suffix": "z" },
            ], "QueryParam": [{ "Name": "v", "Exact": "2" }, { "Name": "w", "Regex": "[0-9]+" }, { "Name": "x", "Present": true }] } },
              "Destination": { "Service": "web", "ServiceSubset": "v2", "PrefixRewrite": "/", "RequestTimeout": "10s", "NumRetries": 3,
                "RetryOnConnectFailure": true, "RetryOn": ["reset", "5xx"], "RetryOnStatusCodes": [429],
                "RequestHeaders": { "Add": { "x-a": "1" }, "Set": { "x-s": "2" }, "Remove": ["x-r"] }, "ResponseHeaders": { "Remove": ["x-q"] } } },
            { "Match": { "HTTP": { "PathPrefix": "/admin" } }, "Destination": { "Service": "admin" } },
            { "Match": { "HTTP": { "PathExact": "/health" } }, "Destination": { "PrefixRewrite": "/ok" } },
            { "Match": { "HTTP": { "PathRegex": "/[a-z]+" } } },
            {},
        ] }),
        json!({ "Kind": "service-splitter", "Name": "api", "Splits": [
            { "Weight": 89.5, "ServiceSubset": "v1" }, { "Weight": 0.5 }, { "Weight": 10, "Service": "web", "ServiceSubset": "blue" },
        ] }),
        json!({ "Kind": "service-resolver", "Name": "api" }),
        json!({ "Kind": "service-resolver", "Name": "api", "DefaultSubset": "v1", "ConnectTimeout": "3s", "RequestTimeout": "1m0s",
            "Subsets": { "v1": { "Filter": "Service.Meta.version == \"1\"" }, "v2": { "Filter": "Service.Meta[\"a.b\"] == \"x y\" and Service.Meta.version == \"2\"" } },
            "Failover": { "*": { "Targets": [{ "ServiceSubset": "v2" }, { "Service": "web" }, { "Service": "db", "ServiceSubset": "eu" }] } },
            "LoadBalancer": { "Policy": "maglev", "HashPolicies": [
                { "Field": "header", "FieldValue": "x-user", "Terminal": true }, { "Field": "cookie", "FieldValue": "s", "Terminal": true },
                { "Field": "query_parameter", "FieldValue": "q", "Terminal": true }, { "SourceIP": true },
            ] }, "PrioritizeByLocality": { "Mode": "none" } }),
        json!({ "Kind": "service-resolver", "Name": "api", "Redirect": { "Service": "web", "ServiceSubset": "v1" } }),
        json!({ "Kind": "service-resolver", "Name": "api", "Failover": { "*": { "Service": "web" } }, "LoadBalancer": { "Policy": "round_robin" } }),
        json!({ "Kind": "service-intentions", "Name": "api", "Meta": { "team": "a" }, "Sources": [
            { "Name": "web", "Precedence": 9, "Type": "consul", "Description": "shop", "Permissions": [
                { "Action": "deny", "HTTP": { "PathPrefix": "/admin" } },
                { "Action": "allow", "HTTP": { "PathPrefix": "/v1", "Methods": ["GET"], "Header": [{ "Name": "x-team", "Exact": "a", "Invert": true }] } },
            ] },
            { "Name": "*", "Precedence": 8, "Type": "consul", "Action": "deny" },
        ] }),
        json!({ "Kind": "service-intentions", "Name": "*", "Sources": [{ "Name": "*", "Precedence": 5, "Type": "consul", "Action": "allow" }] }),
    ]
}

#[test]
fn an_entry_is_given_back_as_it_was_put() {
    for entry in whole() {
        assert_eq!(again(&entry), entry);
    }
    let global = bare(proxy_defaults());
    assert_eq!(again(&global), global);
}

#[test]
fn what_is_written_otherwise_and_means_the_same_is_read() {
    for (entry, same) in [
        (
            json!({ "Kind": "service-router", "name": "api", "routes": [{ "match": { "http": { "path_prefix": "/v1/", "methods": ["get"] } },
                "destination": { "service": "api", "service_subset": "v1", "namespace": "default", "request_timeout": 1_500_000_000, "retry_on_connect_failure": true } }] }),
            json!({ "Kind": "service-router", "Name": "api", "Routes": [{ "Match": { "HTTP": { "PathPrefix": "/v1/", "Methods": ["GET"] } },
                "Destination": { "ServiceSubset": "v1", "RequestTimeout": "1.5s", "NumRetries": 1, "RetryOnConnectFailure": true } }] }),
        ),
        (
            json!({ "Kind": "service-resolver", "Name": "api", "Subsets": { "v1": { "Filter": "Service.Meta.version == v1.2", "OnlyPassing": false } },
                "Failover": { "*": { "Datacenters": ["dc1"], "Service": "web" } }, "LoadBalancer": { "Policy": "least_request" }, "ConnectTimeout": "0s", "Redirect": {} }),
            json!({ "Kind": "service-resolver", "Name": "api", "Subsets": { "v1": { "Filter": "Service.Meta.version == \"v1.2\"" } }, "Failover": { "*": { "Service": "web" } } }),
        ),
        (
            json!({ "Kind": "service-defaults", "Name": "api", "Protocol": "HTTP", "TransparentProxy": {}, "MeshGateway": {}, "Expose": {}, "MutualTLSMode": "strict",
                "Meta": { "postern": "read by people alone" }, "Hash": 12, "CreateIndex": 3, "ModifyIndex": 4, "UpstreamConfig": { "Defaults": { "MeshGateway": {} } } }),
            json!({ "Kind": "service-defaults", "Name": "api", "Protocol": "http" }),
        ),
        (
            json!({ "Kind": "service-intentions", "Name": "api", "Sources": [{ "Name": "web", "Action": "allow", "LegacyID": "x", "Precedence": 9 }] }),
            json!({ "Kind": "service-intentions", "Name": "api", "Sources": [{ "Name": "web", "Action": "allow", "Precedence": 9, "Type": "consul" }] }),
        ),
    ] {
        let read = again_any(&entry);
        assert_eq!(read, same);
    }
}

/// As [`again`], where a subset may be missing that a router names.
fn again_any(entry: &Value) -> Value {
    match read(entry).unwrap() {
        Entry::Settings { service, part } => {
            let kind = part.kind();
            let mut settings = ServiceSettings::of(service);
            part.set(&mut settings);
            bare(write(kind, &settings, 7).unwrap())
        }
        _ => again(entry),
    }
}

#[test]
fn what_has_no_counterpart_is_refused_by_name_with_what_to_do() {
    let defaults = |name: &str, value: Value| json!({ "Kind": "service-defaults", "Name": "api", name: value });
    let route = |name: &str, value: Value| {
        json!({ "Kind": "service-router", "Name": "api", "Routes": [
            { "Match": { "HTTP": { "PathPrefix": "/v1" } }, "Destination": { "Service": "web", name: value } },
        ] })
    };
    let http = |value: Value| json!({ "Kind": "service-router", "Name": "api", "Routes": [{ "Match": { "HTTP": value } }] });
    let split = |name: &str, value: Value| json!({ "Kind": "service-splitter", "Name": "api", "Splits": [{ "Weight": 100, name: value }] });
    let resolver = |name: &str, value: Value| json!({ "Kind": "service-resolver", "Name": "api", name: value });
    let source = |name: &str, value: Value| json!({ "Kind": "service-intentions", "Name": "api", "Sources": [{ "Name": "web", "Action": "allow", name: value }] });
    let global = |name: &str, value: Value| json!({ "Kind": "proxy-defaults", "Name": "global", name: value });
    for (entry, field, cure) in [
        (defaults("MaxInboundConnections", json!(5)), "MaxInboundConnections", "--max-connections"),
        (
            defaults("UpstreamConfig", json!({ "Defaults": { "ConnectTimeoutMs": 5 } })),
            "UpstreamConfig",
            "service that is called",
        ),
        (defaults("Mode", json!("transparent")), "Mode", "--upstream"),
        (defaults("Protocol", json!("thrift")), "Protocol", "write one of them"),
        (defaults("Meta", json!({ "a": "b" })), "Meta", "leave out"),
        (defaults("Namespace", json!("team")), "Namespace", "leave it out"),
        (defaults("Whatever", json!(1)), "Whatever", "leave it out"),
        (
            defaults("RateLimits", json!({ "InstanceLevel": { "Routes": [{}] } })),
            "RateLimits.InstanceLevel.Routes",
            "rate_limits",
        ),
        (route("IdleTimeout", json!("5s")), "Routes[0].Destination.IdleTimeout", "timeouts.idle"),
        (route("Partition", json!("eu")), "Routes[0].Destination.Partition", "leave it out"),
        (route("RetryOn", json!(["retriable-4xx"])), "Routes[0].Destination.RetryOn", "RetryOnStatusCodes"),
        (route("PrefixRewrite", json!("/")), "Routes[0].Destination.PrefixRewrite", "slash"),
        (http(json!({ "PathExact": "/a", "PathPrefix": "/b" })), "Routes[0].Match.HTTP", "keep one"),
        (http(json!({ "CaseInsensitive": true, "PathExact": "/a" })), "Routes[0].Match.HTTP.CaseInsensitive", "(?i)"),
        (
            http(json!({ "Header": [{ "Name": "a", "Exact": "b", "IgnoreCase": true }] })),
            "Routes[0].Match.HTTP.Header[0].IgnoreCase",
            "(?i)",
        ),
        (http(json!({ "QueryParam": [{ "Name": "a" }] })), "QueryParam[0]", "give one"),
        (split("RequestHeaders", json!({ "Set": { "a": "b" } })), "Splits[0].RequestHeaders", "service-router"),
        (split("Weight2", json!(1)), "Splits[0].Weight2", "leave it out"),
        (
            resolver("Subsets", json!({ "v1": { "Filter": "\"v1\" in Service.Tags" } })),
            "Subsets[\"v1\"].Filter",
            "Service.Meta.KEY",
        ),
        (resolver("Subsets", json!({ "v1": { "Filter": "" } })), "Subsets[\"v1\"].Filter", "Service.Meta.KEY"),
        (resolver("Subsets", json!({ "v1": { "Filter": "Service.Meta.a == b or Service.Meta.a == c" } })), "Filter", "--meta"),
        (resolver("Subsets", json!({ "v1": { "Filter": "Service.Meta.a == b", "OnlyPassing": true } })), "OnlyPassing", "check"),
        (resolver("Failover", json!({ "v1": { "Service": "web" } })), "Failover", "\"*\""),
        (resolver("Failover", json!({ "*": { "Datacenters": ["dc2"] } })), "Failover[\"*\"].Datacenters", "one datacenter"),
        (
            resolver("Failover", json!({ "*": { "Targets": [{ "Peer": "b" }] } })),
            "Failover[\"*\"].Targets[0].Peer",
            "leave it out",
        ),
        (resolver("Redirect", json!({ "Datacenter": "dc2" })), "Redirect.Datacenter", "leave it out"),
        (
            resolver("LoadBalancer", json!({ "RingHashConfig": { "MinimumRingSize": 9 } })),
            "LoadBalancer.RingHashConfig",
            "leave it out",
        ),
        (
            resolver("LoadBalancer", json!({ "Policy": "maglev", "HashPolicies": [{ "SourceIP": true }, { "SourceIP": true }] })),
            "HashPolicies[0].Terminal",
            "set it",
        ),
        (source("JWT", json!({ "Providers": [{ "Name": "a" }] })), "Sources[0].JWT", "leave it out"),
        (source("Peer", json!("berlin")), "Sources[0]", "peer"),
        (
            source("Permissions", json!([{ "Action": "allow", "HTTP": { "PathExact": "/" }, "Other": 1 }])),
            "Sources[0].Permissions[0].Other",
            "leave",
        ),
        (global("Config", json!({ "protocol": "http" })), "Config.protocol", "service-defaults for each"),
        (global("AccessLogs", json!({ "Enabled": true })), "AccessLogs.Enabled", "--access-log"),
        (global("Name", json!("other")), "Name", "global"),
    ] {
        let why = read(&entry).unwrap_err();
        assert!(why.contains(field) && why.contains(cure), "{entry}: {why}");
    }
    for (word, says) in [("ingress-gateway", "gateways"), ("mesh", "whole mesh"), ("jwt-provider", "meshctl service config")] {
        assert!(matches!(Kind::parse(word), Err(KindError::Absent(sentence)) if sentence.contains(says)), "{word}");
    }
    assert!(matches!(Kind::parse("nonsense"), Err(KindError::Unknown(_))));
}

#[test]
fn what_consul_has_no_word_for_is_named() {
    let text = include_str!("../../../../traffic/tests/everything.yaml");
    let file = postern_traffic::settings::file::parse(text, "everything.yaml").unwrap();
    let api = &file.services[0];
    for (kind, what) in [(Kind::ServiceDefaults, "rate_limits"), (Kind::ServiceRouter, "mirror")] {
        assert!(unsaid(kind, api).unwrap().contains(what), "{kind}");
    }
    assert_eq!(unsaid(Kind::ServiceSplitter, api), None);
    assert_eq!(unsaid(Kind::ServiceResolver, api), None);
    assert!(unsaid(Kind::ServiceResolver, &file.services[1]).unwrap().contains("port"));
    for kind in [Kind::ServiceDefaults, Kind::ServiceRouter, Kind::ServiceSplitter, Kind::ServiceResolver] {
        let mut cleared = api.clone();
        clear(kind, &mut cleared);
        assert_eq!(write(kind, &cleared, 1), None, "{kind}");
        assert_eq!(cleared.faults, api.faults);
    }
    assert_eq!(protocol_of_all(&json!({ "Config": { "Protocol": "HTTP" } })), Some(postern_intentions::Protocol::Http));
}

prop_compose! {
    fn any_header()(name in "x-[a-z]{1,4}", text in "[a-z]{1,4}", which in 0_usize..6, invert: bool) -> HeaderCriterion {
        let matches = match which {
            0 => TextMatch::Present,
            1 => TextMatch::Exact(text),
            2 => TextMatch::Prefix(text),
            3 => TextMatch::Suffix(text),
            4 => TextMatch::Contains(text),
            _ => TextMatch::Regex(text),
        };
        HeaderCriterion { name, matches, invert }
    }
}

prop_compose! {
    fn any_match()(
        path in "(/[a-z.]{1,3}){1,2}", which in 0_usize..5, headers in prop::collection::vec(any_header(), 0..3),
        methods in prop::collection::vec(prop::sample::select(vec!["GET", "PUT"]), 0..2), query in "[a-z]{0,2}",
    ) -> RequestMatch {
        let mut matches = RequestMatch { headers, methods: methods.into_iter().map(ToOwned::to_owned).collect(), ..RequestMatch::default() };
        match which {
            0 => matches.path_exact = Some(path),
            1 => matches.path_prefix = Some(format!("{path}/")),
            2 => matches.path_regex = Some(format!("{path}[0-9]")),
            3 => matches.path_regex = Some(super::super::intentions::prefix_pattern(&path)),
            _ => {}
        }
        if !query.is_empty() {
            matches.query = vec![QueryCriterion { name: query, matches: TextMatch::Present }];
        }
        matches
    }
}

prop_compose! {
    fn any_target()(service in prop::option::of("[b-d]"), subset in prop::option::of("v[0-9]")) -> (Option<ServiceName>, Option<String>) {
        (service.map(|name| name.parse().unwrap()), subset)
    }
}

prop_compose! {
    fn any_route()(
        matches in any_match(), (service, subset) in any_target(), millis in prop::option::of(1_u64..100_000),
        attempts in prop::option::of(1_u32..5), reset: bool, statuses in prop::collection::vec(400_u16..600, 0..2), add: bool, rewrite: bool,
    ) -> Route {
        let mut on = vec![RetryOn::ConnectFailure];
        on.extend(reset.then_some(RetryOn::Reset));
        let retries = attempts.map(|attempts| Retries { attempts, on, statuses, ..Retries::default() });
        let mut request_headers = HeaderEdits::default();
        if add {
            request_headers.add.insert("x-a".into(), "1".into());
        }
        let can_rewrite = rewrite && (matches.path_prefix.is_some() || matches.path_exact.is_some());
        let to = RouteAction {
            service, subset, rewrite: can_rewrite.then(|| "/r/".to_owned()), request_headers, timeout: millis.map(Period::millis), retries,
            ..RouteAction::default()
        };
        Route { matches, to }
    }
}

prop_compose! {
    fn any_resolver()(
        labels in prop::collection::btree_map("[a-z.\"]{1,4}", "[ -~]{0,5}", 1..3), with_subset: bool, redirect in prop::option::of(any_target()),
        failover in prop::collection::vec(any_target(), 0..3), connect in 1_u64..100_000, request in 1_u64..100_000,
        policy in 0_usize..5, hash in prop::collection::vec(0_usize..4, 0..3), ignore: bool,
    ) -> ResolverPart {
        let mut resolver = Resolver::default();
        if with_subset {
            resolver.subsets.insert("v1".into(), Subset { meta: labels });
            resolver.default_subset = Some("v1".into());
        }
        resolver.redirect = redirect.map(|(service, subset)| Redirect { service, subset, port: None }).filter(|to| *to != Redirect::default());
        let nowhere = SubsetRef::default();
        resolver.failover = failover.into_iter().map(|(service, subset)| SubsetRef { service, subset }).filter(|to| *to != nowhere).collect();
        let on = |which| match which {
            0 => HashOn::Header("x-user".into()),
            1 => HashOn::Cookie("S".into()),
            2 => HashOn::Query("q".into()),
            _ => HashOn::Source(SourceAddress::Address),
        };
        let policy = [Policy::LeastRequest, Policy::RoundRobin, Policy::Random, Policy::RingHash, Policy::Maglev][policy];
        let locality = if ignore { LocalityPreference::Ignore } else { LocalityPreference::Prefer };
        let balancer = Balancer { policy, hash_on: hash.into_iter().map(on).collect(), locality };
        ResolverPart { resolver, connect: Period::millis(connect), request: Period::millis(request), balancer }
    }
}

proptest! {
    #[test]
    fn settings_that_consul_has_words_for_come_back_from_their_entry(
        routes in prop::collection::vec(any_route(), 1..4), shares in prop::collection::vec((1_u16..100, any_target()), 1..4), resolver in any_resolver(),
    ) {
        let split = shares.into_iter().map(|(weight, (service, subset))| Split { weight: Percent::of(weight), service, subset }).collect();
        for part in [Part::Router(routes), Part::Splitter(split), Part::Resolver(Box::new(resolver))] {
            let mut settings = ServiceSettings::of("a".parse().unwrap());
            part.clone().set(&mut settings);
            let Some(entry) = write(part.kind(), &settings, 3) else { continue };
            prop_assert_eq!(&entry["Meta"], &Value::Null, "{}", entry);
            let Ok(Entry::Settings { service, part: read }) = read(&entry) else { panic!("{entry}: {:?}", read(&entry)) };
            prop_assert_eq!(service, settings.service);
            prop_assert_eq!(read, part, "{}", entry);
        }
    }
}
