//! The newcomer's first command.

use crate::support::Mesh;

#[test]
fn the_tour_shows_what_it_says() {
    let mesh = Mesh::start();
    let mut command = mesh.command("dev");
    command.env("POSTERN_DATA_DIR", mesh.path("dev-data")).arg("--tour");
    let output = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    assert!(!mesh.path("dev-data/dev").exists(), "it leaves nothing behind");
}
