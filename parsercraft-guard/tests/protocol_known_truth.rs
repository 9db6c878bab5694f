//! Generated universes of known truth: no answer may surprise, and every explanation must point at the mutation.
#![cfg(feature = "testkit")]

use std::collections::BTreeSet;

use parsercraft_guard::protocol::{Answer, Checker, Verdict, generate};

#[test]
fn answers_agree_with_the_truth_over_many_universes() {
    for seed in 0..60 {
        let sample = generate(seed, 20, 200);
        let checker = Checker::new(&sample.definitions).unwrap_or_else(|errors| panic!("seed {seed}: {errors}"));
        let matrix = checker.check_all(&sample.types, &sample.protocols).unwrap();
        for (ty, name) in sample.types.iter().enumerate() {
            for (protocol, against) in sample.protocols.iter().enumerate() {
                let truth = sample.truth[ty * sample.protocols.len() + protocol];
                let expected = if truth { Answer::Conforms } else { Answer::Violates };
                assert_eq!(
                    matrix.get(ty, protocol),
                    Some(expected),
                    "seed {seed}: {name}: {against}: {:?}\n{:#?}",
                    checker.check_conformance(name, against),
                    sample.definitions.types[name],
                );
            }
        }
        assert_eq!(checker.check_all(&sample.types, &sample.protocols).unwrap(), matrix, "from memory");
    }
}

#[test]
fn each_mutation_is_explained_at_its_place() {
    let mut mutations = BTreeSet::new();
    for seed in 0..60 {
        let sample = generate(seed, 20, 200);
        let checker = Checker::new(&sample.definitions).unwrap();
        for mutant in &sample.mutants {
            let verdict = checker.check_conformance(&mutant.ty, &mutant.protocol).unwrap();
            let Verdict::Violates(violation) = verdict else { panic!("seed {seed}: {mutant:?}: {verdict:?}") };
            // A union or a missing member of the wrong type takes the path further, never elsewhere.
            let path = violation.path_text();
            let rest = path.strip_prefix(&mutant.path);
            assert!(
                rest.is_some_and(|rest| rest.is_empty() || mutant.mutation.contains("recursion")),
                "seed {seed}: {mutant:?}: {violation}"
            );
            mutations.insert(mutant.mutation);
        }
    }
    assert_eq!(mutations.len(), 19, "{mutations:?}");
}

#[test]
fn the_same_seed_gives_the_same_universe() {
    let (one, other) = (generate(42, 15, 150), generate(42, 15, 150));
    assert_eq!(one.definitions, other.definitions);
    assert_eq!(one.truth, other.truth);
    assert_ne!(one.definitions, generate(43, 15, 150).definitions);
}
