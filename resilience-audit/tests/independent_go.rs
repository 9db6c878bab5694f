//! Go's own transparency-log packages (`golang.org/x/mod/sumdb`, from Debian) check our checkpoints and proofs, and
//! refuse changed ones. Where Go cannot be had, the test says so loudly and shows nothing.
#![cfg(feature = "checkpoints")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use resilience_audit::checkpoint::{Checkpoint, SigningKey, list_checkpoints, prove, prove_consistency};
use resilience_audit::{AuditEvent, AuditLog};

const GOPATH: &str = "/usr/share/gocode";

fn installed() -> bool {
    let go = Command::new("go").arg("version").output().is_ok_and(|output| output.status.success());
    go && Path::new(GOPATH).join("src/golang.org/x/mod/sumdb/tlog").is_dir()
}

/// Whether Go and its packages are here, after an attempt to install them where that changes nothing of anyone's: as
/// root, on a machine that is thrown away (the rule of `cargo xtask`).
fn available() -> bool {
    if installed() {
        return true;
    }
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let disposable = set("CI") || Path::new("/.dockerenv").exists() || Path::new("/run/.containerenv").exists();
    let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    if !(disposable && root) {
        return false;
    }
    let apt = |arguments: &[&str]| {
        eprintln!("installing Go: apt-get {}", arguments.join(" "));
        let _ = Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").status();
    };
    apt(&["update"]);
    apt(&["install", "--yes", "--no-install-recommends", "golang-go", "golang-golang-x-mod-dev"]);
    installed()
}

fn build(place: &Path) -> PathBuf {
    let program = place.join("verifier");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/independent_verifier.go");
    let mut go = Command::new("go");
    go.args(["build", "-o"]).arg(&program).arg(source);
    go.env("GO111MODULE", "off").env("GOPATH", GOPATH).env("GOFLAGS", "").env("CGO_ENABLED", "0");
    go.env("GOCACHE", place.join("cache"));
    let output = go.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}

#[test]
fn gos_sumdb_packages_accept_our_checkpoints_and_proofs_and_refuse_changed_ones() {
    if !available() {
        eprintln!("SKIPPED: Go is not installed, so no independent implementation has checked the checkpoints; get it");
        eprintln!("SKIPPED: with: sudo apt-get install golang-go golang-golang-x-mod-dev");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("audit");
    let key = SigningKey::generate("example.com/audit").unwrap();
    let log = AuditLog::builder().path(&dir).segment_bytes(4096).sign_checkpoints(key.clone());
    let log = log.checkpoint_every(Duration::from_secs(3600)).build().unwrap();
    let mut checkpoints: Vec<Checkpoint> = Vec::new();
    for number in 1..=40_u32 {
        log.append_durable(AuditEvent::new("t", "a", number.to_string()).detail("filler", "x".repeat(300)))
            .unwrap()
            .wait()
            .unwrap();
        if [1, 2, 3, 7, 8, 20, 31].contains(&number) {
            checkpoints.push(log.checkpoint().unwrap());
        }
    }
    log.close().unwrap();
    checkpoints.push(log.latest_checkpoint().unwrap());

    let program = build(place.path());
    let verifying = key.verifying_key();
    let keys = [verifying.clone()];
    let run = |files: &[PathBuf]| -> Output {
        Command::new(&program).arg(verifying.to_string()).args(files).output().unwrap()
    };
    let mut files: Vec<PathBuf> = list_checkpoints(&dir, &keys).unwrap().into_iter().map(|file| file.path).collect();
    assert_eq!(files.len(), 8);
    for sequence in 1..=40 {
        let path = place.path().join(format!("{sequence}.tlog-proof"));
        std::fs::write(&path, prove(&dir, sequence, &keys).unwrap().to_string()).unwrap();
        files.push(path);
    }
    for older in &checkpoints {
        let path = place.path().join(format!("{}.consistency", older.size));
        let body = prove_consistency(&dir, older.size, &keys).unwrap();
        std::fs::write(&path, format!("{older}-----\n{body}")).unwrap();
        files.push(path);
    }
    let output = run(&files);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(shown.lines().count(), 8 + 40 + 8, "{shown}");
    for line in ["checkpoint 40 ", "record 39 of 40", "tree 7 to 40"] {
        assert!(shown.lines().any(|shown| shown.starts_with(line)), "{line}: {shown}");
    }

    // That it refuses what was changed shows that it looks.
    for file in [&files[3], &files[20], &files[50]] {
        let mut text = std::fs::read_to_string(file).unwrap();
        // In the text that is signed, or in the last hash of a proof.
        let part = text.find("-----\n").unwrap_or(0);
        let line = part + text[part..].find("\n\n").unwrap() - 10;
        let other = if &text[line..=line] == "A" { "B" } else { "A" };
        text.replace_range(line..=line, other);
        std::fs::write(file, text).unwrap();
        assert!(!run(std::slice::from_ref(file)).status.success(), "{}", file.display());
    }
}
