//! Conformance checks over a generated universe: 10 protocols × 100 types, cold and from memory.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use parsercraft_guard::protocol::{Checker, ProtocolGuard, generate};

fn ten_by_hundred(criterion: &mut Criterion) {
    let sample = generate(1, 10, 100);
    let mut group = criterion.benchmark_group("protocol 10x100");
    group.bench_function("load definitions", |bencher| {
        bencher.iter(|| Checker::new(black_box(&sample.definitions)).unwrap());
    });
    group.bench_function("cold", |bencher| {
        bencher.iter_batched(
            || Checker::new(&sample.definitions).unwrap(),
            |checker| {
                black_box(checker.check_all(&sample.types, &sample.protocols).unwrap());
                checker
            },
            BatchSize::SmallInput,
        );
    });
    let checker = Checker::new(&sample.definitions).unwrap();
    let matrix = checker.check_all(&sample.types, &sample.protocols).unwrap();
    assert_eq!(matrix.answers().len(), 1000);
    group.bench_function("memoised", |bencher| {
        bencher.iter(|| checker.check_all(black_box(&sample.types), &sample.protocols).unwrap());
    });
    group.finish();
}

fn single(criterion: &mut Criterion) {
    let sample = generate(1, 10, 100);
    let checker = Checker::new(&sample.definitions).unwrap();
    let guard = ProtocolGuard::builder(checker.clone()).build().unwrap();
    let conforming = sample.truth.iter().position(|&truth| truth).unwrap();
    let ty = &sample.types[conforming / sample.protocols.len()];
    let protocol = &sample.protocols[conforming % sample.protocols.len()];
    let mutant = &sample.mutants[0];
    let mut group = criterion.benchmark_group("protocol single");
    group.bench_function("conforms, memoised", |bencher| {
        bencher.iter(|| checker.check_conformance(black_box(ty), protocol).unwrap());
    });
    group.bench_function("conforms, memoised, guarded", |bencher| {
        bencher.iter(|| guard.check_conformance(black_box(ty), protocol).unwrap());
    });
    group.bench_function("violates, explained, memoised", |bencher| {
        bencher.iter(|| checker.check_conformance(black_box(&mutant.ty), &mutant.protocol).unwrap());
    });
    group.finish();
}

criterion_group!(benches, ten_by_hundred, single);
criterion_main!(benches);
