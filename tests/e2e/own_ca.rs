//! A CA of the operator's own, made with OpenSSL.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{EchoServer, Mesh, connect, eventually, say};

/// OpenSSL in a directory of its own.
struct OpenSsl(tempfile::TempDir);

impl OpenSsl {
    fn new() -> Self {
        let ca = Self(tempfile::TempDir::new().unwrap());
        ca.shell(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes -keyout root.key -out root.pem -days 3650 \
            -subj '/O=Example/CN=Example root' -addext keyUsage=critical,keyCertSign,cRLSign",
        );
        ca.shell("openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout mesh.key -out mesh.csr -subj '/O=Example/CN=Example mesh'");
        ca
    }

    #[track_caller]
    fn shell(&self, line: &str) -> String {
        let output = Command::new("bash").args(["-euc", line]).current_dir(self.0.path()).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Signs the intermediate with the root; the file holds the chain.
    fn intermediate(&self, name: &str, extensions: &str, validity: &str) -> PathBuf {
        self.shell(&format!(
            "printf '{extensions}' > {name}.ext
             openssl x509 -req -in mesh.csr -CA root.pem -CAkey root.key -CAcreateserial {validity} -extfile {name}.ext -out {name}-alone.pem
             cat {name}-alone.pem root.pem > {name}.pem"
        ));
        self.path(&format!("{name}.pem"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

const CA: &str = r"basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n";

/// Traffic flows, and what the mesh exports is what OpenSSL verifies its SVIDs with.
fn carries_traffic_under(openssl: &OpenSsl, certificate: &Path, key: &str) {
    let echo = EchoServer::start();
    let key = openssl.path(key);
    let mut mesh = Mesh::start_with(&["--ca-cert", certificate.to_str().unwrap(), "--ca-key", key.to_str().unwrap()]);
    let api = mesh.serve("api", &echo.address());
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    assert!(say(&mut connect(web.upstream("api")), "hello").is_some());

    let status = mesh.json(&["ca", "status"]);
    assert_eq!(status["roots"][0]["origin"], "brought", "{status}");
    assert!(mesh.meshctl(&["ca", "status"]).contains("brought"));
    let bundle = openssl.path("bundle.pem");
    std::fs::write(&bundle, mesh.meshctl(&["ca", "export"])).unwrap();
    let same = |file: &str| openssl.shell(&format!("openssl x509 -in {file} -noout -fingerprint -sha256"));
    assert_eq!(same("bundle.pem"), same("root.pem"), "the bundle holds the root alone");

    // The chain as a peer sees it: leaf first, then what is between it and the root.
    let inbound = api.inbound.clone().unwrap();
    openssl.shell(&format!(
        "openssl s_client -connect {inbound} -showcerts </dev/null 2>/dev/null >seen.txt || true
         awk '/BEGIN CERT/{{n++}} n{{print > (\"seen-\" n \".pem\")}} /END CERT/{{}}' seen.txt
         cat $(ls seen-*.pem | tail -n +2) > between.pem"
    ));
    let verified = openssl.shell("openssl verify -purpose any -CAfile bundle.pem -untrusted between.pem seen-1.pem");
    assert!(verified.contains("OK"), "{verified}");
    openssl.shell("rm -f seen-*.pem");

    mesh.kill_control();
    mesh.start_control();
    mesh.wait_connected("api-1");
    eventually("traffic flows after a restart", || say(&mut connect(web.upstream("api")), "again"));
}

#[test]
fn a_root_of_ones_own_carries_traffic() {
    let openssl = OpenSsl::new();
    carries_traffic_under(&openssl, &openssl.path("root.pem"), "root.key");
}

#[test]
fn an_intermediate_with_its_chain_carries_traffic() {
    let openssl = OpenSsl::new();
    let chain = openssl.intermediate("mesh", &CA.replace("CA:TRUE", "CA:TRUE,pathlen:1"), "-days 365");
    carries_traffic_under(&openssl, &chain, "mesh.key");
}

#[test]
fn a_key_with_the_parameters_of_its_curve_is_read() {
    let openssl = OpenSsl::new();
    openssl.shell(
        "openssl ecparam -name prime256v1 -genkey -out curve.key
        openssl req -x509 -new -key curve.key -out curve.pem -days 100 -subj /CN=curve",
    );
    let (certificate, key) = (openssl.path("curve.pem"), openssl.path("curve.key"));
    let mesh = Mesh::start_with(&["--ca-cert", certificate.to_str().unwrap(), "--ca-key", key.to_str().unwrap()]);
    assert_eq!(mesh.json(&["ca", "status"])["roots"][0]["origin"], "brought");
}

#[test]
fn a_ca_that_can_not_sign_is_refused_by_name_and_nothing_is_made() {
    let openssl = OpenSsl::new();
    openssl.intermediate("short", &CA.replace("CA:TRUE", "CA:TRUE,pathlen:0"), "-days 365");
    openssl.intermediate("mute", r"basicConstraints=critical,CA:TRUE\nkeyUsage=critical,digitalSignature\n", "-days 365");
    openssl.intermediate("leaf", r"basicConstraints=critical,CA:FALSE\n", "-days 365");
    openssl.intermediate("mesh", CA, "-days 365");
    openssl.intermediate("brief", CA, "-days 1");
    // OpenSSL 3 of Debian has no option for a start in the past; the date is set back for it instead.
    openssl.shell("mkdir db && touch db/index.txt && printf '01\\n' > db/serial
        printf '[ca]\\ndefault_ca=d\\n[d]\\nnew_certs_dir=db\\ndatabase=db/index.txt\\nserial=db/serial\\ndefault_md=sha256\\npolicy=p\\n[p]\\ncommonName=supplied\\n[e]\\nbasicConstraints=critical,CA:TRUE\\n' > ca.cnf
        openssl ca -batch -config ca.cnf -extensions e -cert root.pem -keyfile root.key -in mesh.csr -out old-alone.pem -notext -startdate 200101000000Z -enddate 210101000000Z
        cat old-alone.pem root.pem > old.pem
        openssl pkcs8 -topk8 -in mesh.key -out locked.key -passout pass:secret -v2 aes-256-cbc");

    let cases = [
        ("short.pem", "mesh.key", vec!["pathlen"]),
        ("mute.pem", "mesh.key", vec!["keyCertSign"]),
        ("leaf.pem", "mesh.key", vec!["is not a CA"]),
        ("mesh-alone.pem", "mesh.key", vec!["chain", "up to the root"]),
        ("mesh.pem", "root.key", vec!["does not belong to the certificate"]),
        ("old.pem", "mesh.key", vec!["2021-01-01"]),
        ("mesh.pem", "locked.key", vec!["encrypted"]),
        ("mesh.key", "mesh.key", vec!["holds no certificate"]),
        ("mesh.pem", "mesh.pem", vec!["not a private key"]),
        ("nowhere.pem", "mesh.key", vec!["No such file"]),
    ];
    let mesh = Mesh::start();
    for (certificate, key, words) in cases {
        let data = mesh.path(&format!("data-{certificate}-{key}"));
        let mut command = mesh.command("control");
        command.args(["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--log-level", "warn"]).arg("--data-dir").arg(&data);
        command.arg("--seal-key-file").arg(mesh.path(&format!("seal-{certificate}-{key}")));
        command.arg("--ca-cert").arg(openssl.path(certificate)).arg("--ca-key").arg(openssl.path(key));
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{certificate}, {key}: {text}");
        assert_eq!(text.trim_end().lines().count(), 1, "{text}");
        for word in words.into_iter().chain([certificate]) {
            assert!(text.contains(word), "{certificate}, {key}: no {word:?} in {text}");
        }
        assert!(!mesh.path(&format!("seal-{certificate}-{key}")).exists(), "a seal key was made");
        assert!(!data.join("operator.token").exists(), "an operator token was made");
    }
}

#[test]
fn another_ca_than_at_the_first_start_is_refused() {
    let (openssl, other) = (OpenSsl::new(), OpenSsl::new());
    let flags = |openssl: &OpenSsl| {
        ["--ca-cert", openssl.path("root.pem").to_str().unwrap(), "--ca-key", openssl.path("root.key").to_str().unwrap()]
            .map(ToString::to_string)
    };
    let ours = flags(&openssl);
    let mut mesh = Mesh::start_with(&ours.each_ref().map(String::as_str));
    mesh.kill_control();
    for (wrong, word) in [(flags(&other).to_vec(), "another CA"), (Vec::new(), "--ca-cert")] {
        let mut command = mesh.command("control");
        command.args(["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]).arg("--seal-key-file").arg(mesh.path("seal.key"));
        let output = command.args(wrong).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(word), "{text}");
    }
    mesh.start_control();
}
