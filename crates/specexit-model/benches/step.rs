//! One decode step of a model so small that only its overhead is left ([`StepProbe`]), on one thread and on
//! two, on a quiet machine and beside a thread outside the pool that keeps a core busy.
//!
//! ```text
//! cargo bench -p specexit-model --bench step
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use specexit_kernels::{Kernels, Precision};
use specexit_model::StepProbe;

/// A thread that does nothing, all the time, wherever the system puts it.
struct Neighbour {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Neighbour {
    fn start() -> Neighbour {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        Neighbour { stop, thread: Some(thread) }
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a loop that does not panic");
        }
    }
}

fn step(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode step, 24 layers of width 64");
    for busy in [false, true] {
        let neighbour = busy.then(Neighbour::start);
        for threads in [1, 2] {
            let kernels = Arc::new(Kernels::new(threads, Precision::Bf16));
            let mut probe = StepProbe::new(kernels).expect("a model of our own making");
            let name = if busy { "beside a busy thread" } else { "alone" };
            let id = BenchmarkId::new(name, format!("{threads} threads"));
            group.bench_function(id, |b| b.iter(|| probe.step().expect("a step")));
        }
        drop(neighbour);
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(50);
    targets = step
}
criterion_main!(benches);
