//! The transport's movements, each beside the plainest form of the same: what both came to stands behind criterion's own lines.

use criterion::{Criterion, criterion_group, criterion_main};
use segstore_bench::moves::{self, Movement, SIZES};
use segstore_bench::{Bench, Over, Taken};

fn all(criterion: &mut Criterion) {
    let bench = Bench::new().expect("a second thread");
    for over in Over::here() {
        for (movement, (len, size)) in Movement::ALL.into_iter().flat_map(|movement| SIZES.map(|size| (movement, size)))
        {
            row(criterion, &bench, over, movement, len, &moves::name(over, movement, size));
        }
    }
}

fn row(criterion: &mut Criterion, bench: &Bench, over: Over, movement: Movement, len: usize, name: &str) {
    let mut taken = Taken::default();
    let measured = moves::with(over, movement, len, |mut ours, mut plain| {
        criterion.bench_function(name, |bencher| {
            bencher.iter_custom(|times| {
                let times = usize::try_from(times).ok();
                bench.round(&mut taken, &mut ours, &mut plain, times).expect("both ways work")
            });
        });
        Ok(())
    });
    measured.expect("the provider works");
    if !taken.is_empty() {
        println!("{}\n", taken.row(name));
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = all
}
criterion_main!(benches);
