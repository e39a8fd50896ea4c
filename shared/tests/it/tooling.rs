//! The scripts and the Makefile: secrets are never readable by others, and builds use the committed versions.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text_of(file: &str) -> String {
    std::fs::read_to_string(repository().join(file)).expect("a file of the repository")
}

/// Prints the mode of the file after each command of `find_external` that leaves it there.
const WATCHED: &str = r#"
    set -eu -o functrace
    umask 022
    source "$1/deploy/local/instance.sh"
    instance_dir=$2
    mysql_url() { echo mysql://ours; }
    kafka_brokers() { echo ours:9092; }
    export DATABASE_URL=mysql://user:secret@db.example/returns KAFKA_BROKERS=kafka.example:9092
    trap 'stat --format=%a "$instance_dir/mysql.external" 2>/dev/null || true' DEBUG
    find_external
"#;

#[test]
fn a_data_source_name_in_a_file_is_never_readable_by_others() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let external = folder.path().join("mysql.external");
    // As a version that stored it for everybody may have left it.
    std::fs::write(&external, "mysql://old").expect("written");
    std::fs::set_permissions(&external, Permissions::from_mode(0o640)).expect("readable");
    let ran = Command::new("bash")
        .args(["-c", WATCHED, "bash"])
        .args([repository().as_path(), folder.path()])
        .output()
        .expect("bash");
    let (seen, errors) = (
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr),
    );
    assert!(ran.status.success(), "{errors}");
    let stored = std::fs::read_to_string(&external).expect("stored");
    assert_eq!(stored, "mysql://user:secret@db.example/returns\n");
    let after_removal = seen.lines().skip_while(|mode| *mode == "640");
    let modes: Vec<&str> = after_removal.collect();
    assert!(
        !modes.is_empty() && modes.iter().all(|mode| *mode == "600"),
        "{seen}"
    );
}

#[test]
fn the_development_server_reads_and_writes_no_files() {
    let script = text_of("deploy/local/mysql-server.sh");
    assert!(script.contains(" --secure-file-priv=NULL "), "{script}");
}

#[test]
fn every_build_of_the_makefile_and_of_ci_uses_the_committed_versions() {
    let makefile = text_of("Makefile");
    let build = makefile
        .lines()
        .find_map(|line| line.strip_prefix("BUILD := "))
        .expect("the options of a build");
    let unlocked: Vec<String> = ["Makefile", ".ci/run", "deploy/check-layout.sh"]
        .map(text_of)
        .iter()
        .flat_map(|text| text.lines())
        .map(|line| line.replace("$(BUILD)", build))
        .filter(|line| {
            let commands = ["build", "test", "clippy", "doc", "tree", "metadata"];
            let resolves = |command: &str| line.contains(&format!("cargo {command} "));
            commands.into_iter().any(resolves) && !line.contains(" --locked")
        })
        // Messages to people.
        .filter(|line| !line.contains("see: cargo") && !line.contains("echo "))
        .collect();
    assert!(unlocked.is_empty(), "{}", unlocked.join("\n"));
}
