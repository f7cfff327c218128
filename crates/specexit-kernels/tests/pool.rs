//! The pool: every index once, panics, nesting, several callers, more threads than cores.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use specexit_kernels::Pool;

const MANY: usize = if cfg!(miri) { 5 } else { 500 };

fn assert_works(pool: &Pool) {
    let counts: Vec<AtomicUsize> = (0..pool.threads()).map(|_| AtomicUsize::new(0)).collect();
    pool.run(|index| {
        counts[index].fetch_add(1, Relaxed);
    });
    assert!(counts.iter().all(|count| count.load(Relaxed) == 1));
}

#[test]
fn calls_every_index_once() {
    for threads in 1..=4 {
        let pool = Pool::new(threads);
        assert_eq!(pool.threads(), threads);
        for _ in 0..MANY {
            assert_works(&pool);
        }
    }
}

#[test]
fn workers_that_sleep_are_woken() {
    let pool = Pool::new(3);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(20));
        assert_works(&pool);
    }
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_stays_usable() {
    let pool = Pool::new(3);
    for culprit in 0..3 {
        let finished = AtomicUsize::new(0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(|index| {
                assert!(index != culprit, "worker {index} fails");
                finished.fetch_add(1, Relaxed);
            });
        }));
        let payload = result.expect_err("the panic is passed on");
        let message = payload.downcast_ref::<String>().expect("a formatted message");
        assert_eq!(*message, format!("worker {culprit} fails"));
        assert_eq!(finished.load(Relaxed), 2);
        assert_works(&pool);
    }
}

#[test]
fn panics_of_all_workers_are_one_panic() {
    let pool = Pool::new(3);
    let result = catch_unwind(AssertUnwindSafe(|| pool.run(|index| panic!("worker {index}"))));
    assert!(result.is_err());
    assert_works(&pool);
}

#[test]
fn nested_runs_call_every_index_too() {
    let (outer, inner) = (Pool::new(2), Pool::new(3));
    let count = AtomicUsize::new(0);
    outer.run(|_| {
        outer.run(|_| {
            inner.run(|_| {
                count.fetch_add(1, Relaxed);
            });
        });
    });
    assert_eq!(count.load(Relaxed), 2 * 2 * 3);
    assert_works(&outer);
}

#[test]
fn a_nested_panic_reaches_the_outer_caller() {
    let pool = Pool::new(2);
    let result = catch_unwind(AssertUnwindSafe(|| pool.run(|_| pool.run(|_| panic!("inner")))));
    assert!(result.is_err());
    // The thread is no longer taken for one inside a job: this runs in parallel again.
    assert_works(&pool);
}

#[test]
fn several_callers_take_turns() {
    let pool = Pool::new(2);
    let count = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..MANY / 4 {
                    pool.run(|_| {
                        count.fetch_add(1, Relaxed);
                    });
                }
            });
        }
    });
    assert_eq!(count.load(Relaxed), 3 * (MANY / 4) * 2);
}

#[test]
fn more_threads_than_cores_finish() {
    let pool = Pool::new(8);
    for _ in 0..MANY / 10 {
        assert_works(&pool);
    }
}

#[test]
fn calls_are_made_by_whoever_is_free() {
    let pool = Pool::new(4);
    let caller = std::thread::current().id();
    let by_caller = AtomicUsize::new(0);
    for _ in 0..MANY {
        pool.run(|_| {
            if std::thread::current().id() == caller {
                by_caller.fetch_add(1, Relaxed);
            }
        });
    }
    // Index 0 is always the caller's.
    assert!(by_caller.load(Relaxed) >= MANY);
}

#[test]
fn dropping_joins_idle_and_sleeping_workers() {
    for wait in [0, 10] {
        let pool = Pool::new(4);
        assert_works(&pool);
        std::thread::sleep(Duration::from_millis(wait));
        drop(pool);
    }
    drop(Pool::new(2));
}

#[test]
#[should_panic(expected = "at least one thread")]
fn a_pool_of_no_threads_panics() {
    Pool::new(0);
}
