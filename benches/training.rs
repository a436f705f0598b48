//! One step of the default training run, and its parts' shares: `cargo bench --bench training`.
#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{Criterion, criterion_group, criterion_main};
use cudrift::data::Toy;
use cudrift::train::{Config, Trainer};

fn step(c: &mut Criterion) {
    let mut trainer = Trainer::new(Config::notebook(Toy::SwissRoll)).unwrap();
    trainer.step().unwrap();
    assert!(trainer.report().unwrap().loss > 0.0);
    let mut bench = c.benchmark_group("training step");
    bench.sample_size(10);
    bench.bench_function("notebook, swiss roll, batch 2048", |bench| bench.iter(|| trainer.step().unwrap()));
}

criterion_group!(training, step);
criterion_main!(training);
