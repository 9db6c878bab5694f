//! The command as people and scripts meet it: what it prints, where, and with which exit code.
//! 0 is well, 1 is something found wrong, 2 is could not be done; whatever goes wrong is one line on stderr.
#![cfg(feature = "cli")]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use resilience_audit::{AuditEvent, AuditLog, Status, tail};

const PARSERCRAFT_GUARD: &str = env!("CARGO_BIN_EXE_parsercraft-guard");

/// One argument.
type Word<'a> = &'a dyn AsRef<OsStr>;

/// A folder for one test's files, whose path is left out of what is compared.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// Exit code, stdout and stderr, the latter two as one would read them.
    fn run(&self, arguments: &[Word<'_>]) -> String {
        let output = run(arguments);
        let folder = format!("{}/", self.0.path().display());
        let mut shown = format!("exit code {}\n", code(&output));
        for (name, bytes) in [("", &output.stdout), ("stderr: ", &output.stderr)] {
            for line in String::from_utf8(bytes.clone()).unwrap().lines() {
                shown.extend([name, &line.replace(&folder, ""), "\n"]);
            }
        }
        shown
    }
}

fn command(arguments: &[Word<'_>]) -> Command {
    let mut command = Command::new(PARSERCRAFT_GUARD);
    command.args(arguments.iter().map(AsRef::as_ref));
    command
}

fn run(arguments: &[Word<'_>]) -> Output {
    let output = command(arguments).stdin(Stdio::null()).output().unwrap();
    let colours = output.stdout.contains(&0x1b) || output.stderr.contains(&0x1b);
    assert!(!colours, "colours are for terminals: {output:?}");
    output
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it exits by itself")
}

/// The exit code when nobody reads stdout; stderr stays empty.
fn code_unread(arguments: &[Word<'_>]) -> i32 {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command(arguments).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let output = output.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    code(&output)
}

#[test]
fn without_arguments_it_explains_itself_on_stderr_and_with_help_on_stdout() {
    let nothing = run(&[]);
    assert_eq!((code(&nothing), nothing.stdout.len()), (2, 0));
    let help = run(&[&"--help"]);
    assert_eq!((code(&help), &help.stdout), (0, &nothing.stderr));
    let text = String::from_utf8(help.stdout).unwrap();
    for verb in ["audit", "protocol"] {
        assert!(text.contains(verb), "{text}");
        assert_eq!(code(&run(&[&&verb, &&"--help"])), 0);
    }
    assert_eq!(run(&[&"--version"]).stdout, format!("parsercraft-guard {}\n", env!("CARGO_PKG_VERSION")).as_bytes());
}

#[test]
fn usage_errors_are_one_line_that_names_the_argument() {
    let folder = Folder::new();
    let shown = [
        folder.run(&[&"--frob"]),
        folder.run(&[&"frobnicate"]),
        folder.run(&[&"protocol", &"x.json"]),
        folder.run(&[&"audit", &"tail", &"log", &"-n", &"many"]),
        folder.run(&[&"audit", &"verify", &"log", &"--anchor", &"7:beef"]),
    ];
    insta::assert_snapshot!(shown.concat(), @r"
    exit code 2
    stderr: error: unexpected argument '--frob' found; see --help
    exit code 2
    stderr: error: unrecognized subcommand 'frobnicate'; see --help
    exit code 2
    stderr: error: the following required arguments were not provided: <TYPE> <PROTOCOL>; see --help
    exit code 2
    stderr: error: invalid value 'many' for '-n <N>': invalid digit found in string; see --help
    exit code 2
    stderr: error: invalid value '7:beef' for '--anchor <ANCHOR>': not an anchor; allowed: a sequence number, `:`, 64 hexadecimal digits; see --help
    ");
}

mod protocol {
    use super::*;

    const DEFINITIONS: &str = r#"{
        "protocols": { "Reader": { "methods": { "read": "(size: int) -> bytes" } } },
        "types": {
            "File": { "methods": { "read": "(size: int) -> bytes" } },
            "Text": { "methods": { "read": "(size: int) -> str" } }
        }
    }"#;

    #[test]
    fn says_yes_no_and_why() {
        let folder = Folder::new();
        let json = folder.write("types.json", DEFINITIONS);
        let definitions: toml::Value = serde_json::from_str(DEFINITIONS).unwrap();
        let toml = folder.write("types.toml", &toml::to_string(&definitions).unwrap());
        insta::assert_snapshot!(folder.run(&[&"protocol", &json, &"File", &"Reader"]), @r"
        exit code 0
        File conforms to Reader
        ");
        insta::assert_snapshot!(folder.run(&[&"protocol", &toml, &"Text", &"Reader"]), @r"
        exit code 1
        Text does not conform to Reader: `Reader.read` → return: expected `bytes`, found `str`
        ");
    }

    #[test]
    fn what_cannot_be_asked_is_one_clear_line() {
        let folder = Folder::new();
        folder.write("types.json", DEFINITIONS);
        folder.write("broken.json", "{\n  \"types\": 7\n}");
        folder.write("broken.toml", "types = [");
        folder.write("types.yaml", "");
        folder.write("endless.json", r#"{ "protocols": { "A": { "extends": ["A"] } } }"#);
        let shown: Vec<_> = [
            ["types.json", "Nothing", "Reader"],
            ["types.json", "File", "Nobody"],
            ["none.json", "File", "Reader"],
            ["broken.json", "File", "Reader"],
            ["broken.toml", "File", "Reader"],
            ["types.yaml", "File", "Reader"],
            ["endless.json", "File", "Reader"],
        ]
        .into_iter()
        .map(|[file, ty, protocol]| folder.run(&[&"protocol", &folder.path(file), &ty, &protocol]))
        .collect();
        insta::assert_snapshot!(shown.concat(), @r"
        exit code 2
        stderr: error: `Nothing`: unknown type `Nothing`; allowed: a name under `types`, `protocols` or `aliases`, a type parameter in scope, or a built-in type
        exit code 2
        stderr: error: `Nobody`: unknown type `Nobody`; allowed: a name under `types`, `protocols` or `aliases`, a type parameter in scope, or a built-in type
        exit code 2
        stderr: error: cannot read none.json: No such file or directory (os error 2)
        exit code 2
        stderr: error: broken.json: invalid type: integer `7`, expected a table by name at line 2 column 12
        exit code 2
        stderr: error: broken.toml: unclosed array, expected `]` at line 1 column 10
        exit code 2
        stderr: error: types.yaml is of no known format; allowed: .json, .toml
        exit code 2
        stderr: error: `A` extends itself: A → A; allowed: extending without cycles
        ");
    }

    #[test]
    fn the_exit_code_is_right_when_nobody_reads() {
        let folder = Folder::new();
        let file = folder.write("types.json", DEFINITIONS);
        for (ty, expected) in [("File", 0), ("Text", 1)] {
            assert_eq!(code_unread(&[&"protocol", &file, &ty, &"Reader"]), expected, "{ty}");
        }
    }
}

mod audit {
    use super::*;

    /// A log of three records.
    fn log(folder: &Folder) -> PathBuf {
        let directory = folder.path("log");
        let log = AuditLog::open(&directory).unwrap();
        for (number, package) in ["serde", "syn", "clap"].into_iter().enumerate() {
            let event =
                AuditEvent::new("registry", "fetch", package).status(Status::Success).detail("try", number as u64);
            log.append(event).unwrap();
        }
        log.close().unwrap();
        directory
    }

    fn segment(directory: &Path) -> PathBuf {
        let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
        files.into_iter().find(|file| file.extension().is_some_and(|ending| ending == "audit")).unwrap()
    }

    fn audit(folder: &Folder, arguments: &[&str], directory: &Path) -> String {
        let mut words: Vec<Word<'_>> = vec![&"audit"];
        words.extend(arguments.iter().map(|word| word as Word<'_>));
        words.push(&directory);
        folder.run(&words)
    }

    #[test]
    fn verify_finds_a_log_sound_and_prints_the_anchor_that_it_accepts_later() {
        let folder = Folder::new();
        let directory = log(&folder);
        let sound = run(&[&"audit", &"verify", &"--json", &directory]);
        assert_eq!(code(&sound), 0);
        let report: serde_json::Value = serde_json::from_slice(&sound.stdout).unwrap();
        let own = tail(&directory, 100).unwrap();
        assert_eq!((&report["sound"], &report["problem"]), (&true.into(), &serde_json::Value::Null));
        assert_eq!(report["records"], own.len());
        let end = report["end"].as_str().unwrap();
        assert_eq!(end, own.last().unwrap().anchor().to_string());

        assert!(audit(&folder, &["verify", "--anchor", end], &directory).starts_with("exit code 0\nsound: "));
        let forged = end.replace(['0', '1'], "7");
        let shown = audit(&folder, &["verify", "--anchor", &forged], &directory);
        assert!(shown.starts_with("exit code 1\nnot sound "), "{shown}");
    }

    #[test]
    fn verify_names_the_place_of_a_changed_byte() {
        let folder = Folder::new();
        let directory = log(&folder);
        let segment = segment(&directory);
        let mut bytes = fs::read(&segment).unwrap();
        let place = bytes.windows(3).position(|window| window == b"syn").unwrap();
        bytes[place] = b'S';
        fs::write(&segment, &bytes).unwrap();

        let shown = audit(&folder, &["verify"], &directory);
        let file = segment.file_name().unwrap().to_str().unwrap();
        assert!(shown.starts_with("exit code 1\nnot sound after "), "{shown}");
        assert!(shown.contains(file) && shown.contains("at byte"), "{shown}");
        assert!(!shown.contains("stderr"), "{shown}");
        let json = audit(&folder, &["verify", "--json"], &directory);
        assert!(json.starts_with("exit code 1\n{") && json.contains(r#""sound":false"#), "{json}");
    }

    #[test]
    fn tail_prints_the_last_records_in_order() {
        let folder = Folder::new();
        let directory = log(&folder);
        let own: Vec<_> = tail(&directory, 2).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(audit(&folder, &["tail", "-n", "2"], &directory), format!("exit code 0\n{}\n", own.join("\n")));

        let json = run(&[&"audit", &"tail", &"--json", &directory]);
        let lines = String::from_utf8(json.stdout).unwrap();
        let resources: Vec<_> = lines
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .filter(|record| record["event_type"] == "registry")
            .map(|record| record["resource"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(resources, ["serde", "syn", "clap"]);
    }

    /// A log of events that differ in everything, at fixed times.
    fn varied(folder: &Folder) -> PathBuf {
        let directory = folder.path("log");
        let log = AuditLog::open(&directory).unwrap();
        let at =
            |second: u64| std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000 + second);
        log.append(AuditEvent::new("user", "login", "ada").status(Status::Success).at(at(0))).unwrap();
        let refused =
            AuditEvent::new("user", "login", "bob\u{1b}[31m").status(Status::Rejected).actor("gate").at(at(1));
        log.append(refused.severity(resilience_core::Severity::Low)).unwrap();
        let failed = AuditEvent::new("registry", "fetch", "serde").error("connection reset").at(at(2));
        log.append(failed.severity(resilience_core::Severity::High).detail("try", 3)).unwrap();
        log.close().unwrap();
        directory
    }

    #[test]
    fn query_prints_what_meets_all_conditions_as_a_table() {
        let folder = Folder::new();
        let directory = varied(&folder);
        insta::assert_snapshot!(audit(&folder, &["query"], &directory), @r#"
        exit code 0
        #  time                      type      action  resource         status    more
        3  2023-11-14T22:13:22.000Z  registry  fetch   serde            failure   severity=high try=3 error="connection reset"
        2  2023-11-14T22:13:21.000Z  user      login   "bob\u{1b}[31m"  rejected  actor=gate severity=low
        1  2023-11-14T22:13:20.000Z  user      login   ada              success
        "#);
        insta::assert_snapshot!(audit(&folder, &["query", "--type", "user", "--oldest-first", "-n", "1"], &directory), @r#"
        exit code 0
        #  time                      type  action  resource  status   more
        1  2023-11-14T22:13:20.000Z  user  login   ada       success
        "#);
        for (conditions, resources) in [
            (&["--status", "success"][..], "ada"),
            (&["--severity", "medium"], "serde"),
            (&["--since", "2023-11-14T22:13:22Z"], "serde"),
            (&["--until", "2023-11-14T22:13:21Z"], "ada"),
            (&["--action", "fetch", "--kind", "event"], "serde"),
            (&["--resource", "ada"], "ada"),
            (&["--type", "user", "--status", "failure"], ""),
            (&["--since", "1h"], ""),
        ] {
            let shown = audit(&folder, &[&["query", "--json"], conditions].concat(), &directory);
            let lines = shown.lines().skip(1).map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            let found: Vec<_> = lines.map(|record| record["resource"].as_str().unwrap().to_owned()).collect();
            assert_eq!(found.join(" "), resources, "{conditions:?}: {shown}");
        }
        let wrong = audit(&folder, &["query", "--since", "yesterday"], &directory);
        insta::assert_snapshot!(wrong, @r#"
        exit code 2
        stderr: error: invalid value 'yesterday' for '--since <TIME>': neither a time like 2026-01-31T12:00:00Z nor an age like 90min, 2h or 7days; see --help
        "#);
    }

    #[test]
    fn stats_count_the_log_in_one_page() {
        let folder = Folder::new();
        let directory = varied(&folder);
        insta::assert_snapshot!(audit(&folder, &["stats"], &directory), @r#"
        exit code 0
        3 records in 1 segments, 485 bytes
        from 2023-11-14T22:13:20.000Z to 2023-11-14T22:13:22.000Z
        gaps 0, recoveries 0

        by type
          user      2
          registry  1

        by status
          failure   1
          rejected  1
          success   1

        by severity
          (none)  1
          high    1
          low     1

        by actor
          (none)  2
          gate    1
        "#);
        let json = run(&[&"audit", &"stats", &"--json", &directory]);
        let stats: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!((&stats["records"], &stats["types"]["user"]), (&3.into(), &2.into()));
    }

    #[test]
    fn tail_goes_on_with_what_is_written_later() {
        use std::io::BufRead as _;

        let folder = Folder::new();
        let directory = varied(&folder);
        let mut follower =
            command(&[&"audit", &"tail", &"-f", &"-n", &"1", &directory]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = std::io::BufReader::new(follower.stdout.take().unwrap()).lines();
        assert!(lines.next().unwrap().unwrap().contains(" registry fetch serde "));
        let log = AuditLog::open(&directory).unwrap();
        log.append(AuditEvent::new("user", "logout", "ada")).unwrap();
        let line = lines.next().unwrap().unwrap();
        assert!(line.contains("#4 user logout ada"), "{line}");
        follower.kill().unwrap();
        follower.wait().unwrap();
    }

    #[test]
    fn what_is_no_log_is_one_clear_line_and_is_not_made_one() {
        let folder = Folder::new();
        let file = folder.write("file", "");
        let missing = folder.path("missing");
        let shown: Vec<_> = [["verify"], ["tail"]]
            .iter()
            .flat_map(|verb| [&missing, &file].map(|path| audit(&folder, verb, path)))
            .collect();
        insta::assert_snapshot!(shown.concat(), @r"
        exit code 2
        stderr: error: missing is not an audit log: there is nothing
        exit code 2
        stderr: error: file is not an audit log: it is not a directory
        exit code 2
        stderr: error: missing is not an audit log: there is nothing
        exit code 2
        stderr: error: file is not an audit log: it is not a directory
        ");
        assert!(!missing.exists());
    }

    #[test]
    fn a_closed_pipe_is_no_error_and_hides_no_verdict() {
        let folder = Folder::new();
        let directory = log(&folder);
        assert_eq!(code_unread(&[&"audit", &"tail", &directory]), 0);
        assert_eq!(code_unread(&[&"audit", &"verify", &directory]), 0);
        let segment = segment(&directory);
        let mut bytes = fs::read(&segment).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&segment, &bytes).unwrap();
        assert_eq!(code_unread(&[&"audit", &"verify", &directory]), 1);
    }
}

#[cfg(feature = "syn")]
mod ast {
    use super::*;

    fn files(folder: &Folder) -> [PathBuf; 4] {
        let bomb = format!("fn f() {{ let x = {}1{}; }}\n", "(".repeat(5000), ")".repeat(5000));
        [
            folder.write("good.rs", "mod a { pub fn f() {} }\nfn g() { loop { return; } }\n"),
            folder.write("bad.rs", "fn f() {\n    g(;\n}\n"),
            folder.write("bomb.rs", &bomb),
            folder.write("empty.rs", ""),
        ]
    }

    fn ast(folder: &Folder, arguments: &[&str], files: &[PathBuf]) -> String {
        let mut words: Vec<Word<'_>> = vec![&"ast"];
        words.extend(arguments.iter().map(|word| word as Word<'_>));
        words.extend(files.iter().map(|file| file as Word<'_>));
        folder.run(&words)
    }

    #[test]
    fn parses_good_bad_and_hostile_files_and_goes_on() {
        let folder = Folder::new();
        insta::assert_snapshot!(ast(&folder, &["parse"], &files(&folder)), @r"
        exit code 1
        good.rs: ok, 2 functions, 22 tokens
        bad.rs: syntax error at line 3, column 1: no token begins here, or what begins is never closed
        bomb.rs: brackets are nested 257 deep at line 1, column 273; allowed: 256
        empty.rs: ok, 0 functions, 0 tokens
        ");
    }

    #[test]
    fn prints_one_json_object_for_each_file() {
        let folder = Folder::new();
        let shown = ast(&folder, &["parse", "--json"], &files(&folder));
        let (first, lines) = shown.split_once('\n').unwrap();
        assert_eq!(first, "exit code 1");
        let answers: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(answers.len(), 4);
        assert_eq!((&answers[0]["file"], &answers[0]["ok"]), (&"good.rs".into(), &true.into()));
        assert_eq!(answers[0]["output"]["Summary"]["functions"], 2);
        assert_eq!((&answers[1]["file"], &answers[1]["ok"]), (&"bad.rs".into(), &false.into()));
        let error = "brackets are nested 257 deep at line 1, column 273; allowed: 256";
        let bomb = serde_json::json!({ "file": "bomb.rs", "ok": false, "category": "validation", "error": error });
        assert_eq!(answers[2], bomb);
    }

    #[test]
    fn good_files_alone_are_code_0() {
        let folder = Folder::new();
        let [good, _, _, empty] = files(&folder);
        insta::assert_snapshot!(ast(&folder, &["control_flow"], &[good, empty]), @r"
        exit code 0
        good.rs:1: a::f: 0 branches, 0 loops, complexity 1, 0 deep
        good.rs:2: g: 0 branches, 1 loops, complexity 1, 1 deep
        ");
    }

    #[test]
    fn what_cannot_be_done_as_asked_is_one_clear_line() {
        let folder = Folder::new();
        let [good, ..] = files(&folder);
        let missing = folder.path("missing.rs");
        let shown = [
            folder.run(&[&"ast", &"parse", &missing]),
            folder.run(&[&"ast", &"parse", &"--language", &"cobol", &good]),
            folder.run(&[&"ast", &"generate_c", &good]),
            folder.run(&[&"ast", &"compile", &good]),
            folder.run(&[&"ast", &"parse"]),
        ];
        insta::assert_snapshot!(shown.concat(), @r"
        exit code 2
        stderr: error: cannot read missing.rs: No such file or directory (os error 2)
        exit code 2
        stderr: error: no language is called `cobol`; known: rust
        exit code 2
        stderr: error: language `rust` does not offer `generate_c`; it offers: parse, control_flow
        exit code 2
        stderr: error: invalid value 'compile' for '<OPERATION>': `compile` is no operation; allowed: parse, infer_types, control_flow, generate_c, generate_wasm; see --help
        exit code 2
        stderr: error: the following required arguments were not provided: <FILES>...; see --help
        ");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_without_an_end_or_that_is_no_text_is_refused_like_any_other() {
        let folder = Folder::new();
        let binary = folder.path("binary.rs");
        fs::write(&binary, [b'/', b'/', 0xff]).unwrap();
        insta::assert_snapshot!(ast(&folder, &["parse"], &["/dev/zero".into(), binary]), @r"
        exit code 1
        /dev/zero: source has 4194305 bytes; allowed: 4194304
        binary.rs: source is not UTF-8: byte 0xff at line 1, column 3 (offset 2); allowed: UTF-8
        ");
    }

    #[test]
    fn the_exit_code_is_right_when_nobody_reads() {
        let folder = Folder::new();
        let [good, bad, ..] = files(&folder);
        assert_eq!(code_unread(&[&"ast", &"parse", &good]), 0);
        assert_eq!(code_unread(&[&"ast", &"parse", &good, &bad, &good]), 1);
    }
}

#[cfg(all(feature = "lsp", feature = "testkit"))]
mod lsp {
    use std::sync::Arc;
    use std::time::Duration;

    use parsercraft_guard::testkit::lsp_client::LspClient;
    use serde_json::json;

    use super::*;

    const SERVER: &str = env!("CARGO_BIN_EXE_scripted-language-server");
    /// For waits that end much earlier unless something is broken.
    const LONG: Duration = Duration::from_secs(30);

    fn guarded(arguments: &[Word<'_>]) -> (std::process::Child, Arc<LspClient>) {
        let mut words: Vec<Word<'_>> = vec![&"lsp"];
        words.extend(arguments);
        let mut guard =
            command(&words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (output, input) = (guard.stdout.take().unwrap(), guard.stdin.take().unwrap());
        (guard, LspClient::connect(output, input).unwrap())
    }

    #[test]
    fn an_editor_talks_to_a_server_through_the_guard_and_leaves_with_code_0() {
        let (mut guard, editor) = guarded(&[&"--", &SERVER]);
        let answer = editor.initialize(LONG).expect("initialize is answered");
        assert_eq!(answer["result"]["serverInfo"]["name"], "scripted");
        assert!(editor.leave(LONG).is_some(), "shutdown is answered");
        assert_eq!(guard.wait().unwrap().code(), Some(0));
    }

    #[test]
    fn a_server_that_crashes_is_replaced_and_the_log_tells_of_it() {
        let folder = Folder::new();
        let log = folder.path("log");
        let (mut guard, editor) = guarded(&[&"--audit", &log, &"--", &SERVER, &"--fault", &"crash@3"]);
        editor.initialize(LONG).expect("initialize is answered");
        let params = json!({"textDocument": {"uri": "file:///a"}, "position": {"line": 0, "character": 0}});
        for _ in 0..3 {
            assert!(editor.call("textDocument/hover", &params, LONG).is_some(), "every request is answered");
        }
        editor.leave(LONG);
        assert!(guard.wait().unwrap().code().is_some());
        let records = tail(&log, 100).unwrap();
        assert!(records.iter().any(|record| record.action() == "server_lost"), "{records:?}");
        assert_eq!(code(&run(&[&"audit", &"verify", &log])), 0);
    }

    #[test]
    fn a_signal_ends_the_session_and_the_server() {
        let (mut guard, editor) = guarded(&[&"--", &SERVER]);
        editor.initialize(LONG).expect("initialize is answered");
        let process = rustix::process::Pid::from_child(&guard);
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
        assert!(editor.wait_closed(LONG), "the editor sees the end");
        assert!(guard.wait().unwrap().code().is_some(), "it ends by itself, not by the signal");
    }

    #[test]
    fn a_server_that_does_not_exist_is_a_clear_message() {
        let folder = Folder::new();
        let shown = folder.run(&[&"lsp", &"--", &"/no/such/server"]);
        assert_eq!(shown.lines().next(), Some("exit code 2"));
        insta::assert_snapshot!(shown.lines().last().unwrap(), @"stderr: error: cannot start the language server `/no/such/server`: No such file or directory (os error 2); check that it is installed and in PATH");
    }

    #[test]
    fn a_log_that_cannot_be_kept_keeps_the_server_from_starting() {
        let folder = Folder::new();
        let file = folder.write("file", "");
        let proof = folder.path("proof");
        insta::assert_snapshot!(folder.run(&[&"lsp", &"--audit", &file, &"--", &"touch", &proof]), @r"
        exit code 2
        stderr: error: file is not an audit log: it is a file; allowed: a new path, an empty directory or the directory of a log
        ");
        assert!(!proof.exists());
        insta::assert_snapshot!(folder.run(&[&"lsp"]), @r"
        exit code 2
        stderr: error: the following required arguments were not provided: <SERVER>...; see --help
        ");
    }
}
