use clap::{CommandFactory, Parser};

use super::*;

#[test]
fn the_tree_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_of_the_contract_is_read() {
    let lines = "\
dev
dev --tour --keep
dev --bare
control
control --config f --data-dir d --http 127.0.0.1:8500 --http-cert c --http-key k --grpc [::]:8502 --trust-domain td --datacenter dc1
control --default audit --svid-ttl 24h --renew-grace 72h --ca-cert c --ca-key k --seal-key-file f --store redb
control --dns 127.0.0.1:8600 --store etcd://a:2379,b:2379 --print-addresses --log-level debug --log-format json
proxy --service web
proxy --service web --id web-1 --config f --token t --control a:1,b:2 --listen :21000 --advertise h:1 --local 8080 --local grpc=unix:/s
proxy --service web --token-file f --upstream db=5432 --upstream api:grpc=7001 --upstream x=unix:/p --protocol grpc --admin 19000 --metrics :9
proxy --service web --state-dir d --workers 2 --drain 10s --access-log off --meta a=b --locality eu/a --max-connections 9 --max-connections-per-peer 3
run --service web -- app --flag
run --service web --template a.tmpl:a.conf:HUP --template b:c --env-prefix app/config/ -- app
run --service web --local 8080 --ready-timeout 30s --shutdown-delay 2s --kill-timeout 10s -- app
token create --service web --uses 3 --ttl 15m
token create --service web -o json
token list
token revoke abc --svids
intention allow web api --for 2h --reason why --wait 5s
intention deny web *
intention audit * *
intention list -o yaml
intention get web api
intention delete web api --temporary
intention match api
intention match web --source
intention check web api --method GET --path /x --header a=b --file f
intention explain web api --method GET
intention default deny
intention apply -f f --merge --yes
intention plan -f f
intention validate f
intention export
intention suggest
intention history
intention history web api
intention rollback 12
service list
service show web
service register -f f
service deregister web-1 --revoke
service config apply -f f
service config apply -f - --replace --yes --wait 5s --reason r
service config plan -f f --replace
service config validate f
service config show
service config show api -o json
service config export
service config delete api --wait 0s
service config delete corp --jwt
kv get a
kv put a b
kv delete a
kv list
kv watch a
kv export
kv import f
ca status
ca rotate
ca rotate --now
ca export
acl token create --policy p --role r --service-identity web --node-identity n:dc1 --ttl 2h --description d
acl token list
acl token show self
acl token update anonymous --policy p
acl token delete x
acl policy set p --rules r
acl policy set p -f rules.hcl
acl policy list
acl policy show p
acl policy delete p
acl role set r --policy p
acl role set r --policy p --service web
acl role list
acl role show r
acl role delete r
acl bootstrap
job up f
job plan f
job ps
job logs f
job stop f
job render f
snapshot save f
snapshot inspect f
snapshot restore f --replace-mesh --yes
status
status -o json
tail
tail --service web
tail --source web --destination api --verdict deny,audit -o json --for 10s --max 3
top
top --service web --since 10m --sort p99 -o json
graph
graph -o dot --since 1h --destination api
graph -o mermaid
intention audited --since 1h --service api -o yaml
doctor
import consul --from http://127.0.0.1:8500 --from kv.json --consul-default allow --dry-run
completions bash
reference
demo-service --name web --listen 127.0.0.1:0";
    for line in lines.lines() {
        let words = std::iter::once("meshctl").chain(line.split(' '));
        if let Err(error) = Cli::try_parse_from(words) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn what_can_not_be_is_refused() {
    for line in [
        "",
        "frobnicate",
        "dev --tour --bare",
        "control --http nonsense",
        "control --svid-ttl 24",
        "proxy",
        "proxy --service Web",
        "proxy --service web --upstream db",
        "proxy --service web --token t --token-file f",
        "proxy --service web --workers 0",
        "run --service web",
        "intention allow web",
        "intention allow web a.b",
        "intention check web *",
        "intention default maybe",
        "token create",
        "token create --service web --uses 0",
    ] {
        let words = std::iter::once("meshctl").chain(line.split(' ').filter(|word| !word.is_empty()));
        assert!(Cli::try_parse_from(words).is_err(), "{line}");
    }
}

#[test]
fn the_help_lists_every_command() {
    let help = Cli::command().render_help().to_string();
    for command in Cli::command().get_subcommands() {
        let is_listed = help.lines().any(|line| line.trim_start().split(' ').next() == Some(command.get_name()));
        assert_eq!(is_listed, !command.is_hide_set(), "{}", command.get_name());
    }
}

#[test]
fn no_help_is_wider_than_a_terminal_should_be() {
    let help = Cli::command().render_help().to_string();
    assert!(help.lines().all(|line| line.chars().count() <= 120), "{help}");
}
