//! The protocol stage: conformance of a few hundred types whose truth is known, and definitions made to hang a checker.

use std::time::Instant;

use parsercraft_guard::protocol::{Answer, Checker, Definitions, Verdict};

use super::Guard;
use super::guarded::{Bench, Trouble};
use super::line::{Findings, Stage};

const STAGE: Stage = Stage::Protocol;

pub(super) fn run(bench: &Bench) -> Result<Findings, Trouble> {
    let mut findings = Findings::default();
    let guard = bench.toolchain.protocol().ok_or("no protocol guard")?;
    let sample = &bench.sample;
    let mut rows = Vec::new();
    let (mut wrong, mut asked, mut conforming) = (0, 0, 0);
    for (row, ty) in sample.types.iter().enumerate() {
        let begun = Instant::now();
        let matrix = guard.check_all(&[ty], &sample.protocols)?;
        rows.push((row as f64, begun.elapsed().as_secs_f64() * 1e6));
        let truth = &sample.truth[row * sample.protocols.len()..][..sample.protocols.len()];
        for (answer, truth) in matrix.answers().iter().zip(truth) {
            // Broken on purpose: a checker that lets everything through.
            let answer = bench.is_broken(Guard::Protocol) || *answer == Answer::Conforms;
            asked += 1;
            conforming += usize::from(answer);
            wrong += usize::from(answer != *truth);
        }
        if row % 20 == 0 {
            bench.progress(STAGE, row, sample.types.len());
        }
    }
    findings.check(
        asked >= 5_000 && wrong == 0,
        "every answer is the known truth",
        format!("{wrong} of {asked} wrong"),
    );
    let mut misplaced = 0;
    for mutant in &sample.mutants {
        match guard.check_conformance(&mutant.ty, &mutant.protocol)? {
            Verdict::Violates(violation) if violation.to_string().contains(&mutant.path) => {}
            _ => misplaced += 1,
        }
    }
    findings.check(
        !sample.mutants.is_empty() && misplaced == 0,
        "every refusal names the member that is wrong",
        format!("{misplaced} of {} misplaced", sample.mutants.len()),
    );
    hostile(bench, &mut findings)?;
    bench.progress(STAGE, sample.types.len(), sample.types.len());
    findings.figure("types × protocols", format!("{} × {}", sample.types.len(), sample.protocols.len()));
    findings.figure("conforming pairs", conforming);
    findings.series.insert("row_us".into(), super::ast::thin(rows));
    Ok(findings)
}

/// Definitions that contradict themselves are refused by name; ones that explode run out of fuel; the guard goes on.
fn hostile(bench: &Bench, findings: &mut Findings) -> Result<(), Trouble> {
    bench.fault(STAGE, "definitions that hang a checker")?;
    let cyclic: Definitions =
        serde_json::from_str(r#"{"protocols": {"A": {"extends": ["B"]}, "B": {"extends": ["A"]}}, "types": {}}"#)?;
    let refused = Checker::new(&cyclic).err().map(|error| error.to_string()).unwrap_or_default();
    findings.check(
        refused.contains('A') && refused.contains('B'),
        "a cycle of protocols is refused with the names",
        if refused.is_empty() { "accepted".to_owned() } else { refused },
    );
    // Grows without end when it is unfolded: Box[Box[Box[…]]].
    let growing: Definitions = serde_json::from_str(
        r#"{"protocols": {"Grow": {"params": ["T"], "methods": {"next": "() -> Grow[list[T]]"}}},
            "types": {"Left": {"params": ["T"], "methods": {"next": "() -> Left[list[T]]"}}}}"#,
    )?;
    let begun = Instant::now();
    let verdict = Checker::new(&growing)?.check_conformance("Left[int]", "Grow[int]")?;
    findings.check(
        matches!(verdict, Verdict::OutOfFuel(_)),
        "a type that grows for ever is answered: out of fuel",
        format!("{verdict:?}").chars().take(60).collect::<String>(),
    );
    findings.figure("answer on a type that grows for ever", format!("{:.1} ms", begun.elapsed().as_secs_f64() * 1e3));
    let after = bench.toolchain.protocol().ok_or("no protocol guard")?;
    let still = after.check_conformance(&bench.sample.types[0], &bench.sample.protocols[0]).is_ok();
    findings.check(still, "the guard answers afterwards", still);
    if !still {
        return Ok(());
    }
    bench.recovered(STAGE, "definitions that hang a checker")
}
