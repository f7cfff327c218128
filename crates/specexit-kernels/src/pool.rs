//! A persistent pool for work of a few microseconds: its threads spin between jobs.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, yield_now};
use std::time::{Duration, Instant};

/// Turns of the spin loop before a waiting thread begins to yield: some tens of microseconds, more
/// than lies between two operations of a decode step and less than another process would notice.
const SPINS: u32 = if cfg!(miri) { 4 } else { 2_000 };

/// How long an idle worker yields before it sleeps. An idle server then burns nothing, and the gap
/// between two decode steps (sampling, scheduling, streaming) is bridged without a system call.
const YIELD: Duration = Duration::from_millis(if cfg!(miri) { 0 } else { 2 });

/// Shares into which claimed work is cut, at most.
const SHARES: usize = 64;

/// Bits of `Shared::state` that count the calls of a job.
const INDEX: u32 = 16;

thread_local! {
    /// Whether this thread is executing a job of some pool.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// A fixed set of threads that executes one job at a time; the calling thread is worker 0.
///
/// Workers wait for a job by spinning (tens of microseconds), then yielding (2 ms), then sleeping.
/// Where another process has taken a worker's core, the caller does that worker's share as well
/// instead of waiting for it, and waits by spinning, then yielding, for shares that have begun: a
/// busy neighbour costs at most the worker, not the job.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held by the thread whose job is running.
    leader: Mutex<()>,
}

/// A closure whose type and lifetime are erased.
#[derive(Clone, Copy)]
struct Job {
    data: *const (),
    call: unsafe fn(*const (), usize),
}

/// Keeps what one side spins on apart from what the other side writes.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line<T>(T);

struct Shared {
    /// Calls of the current job.
    calls: usize,
    /// Number of jobs published so far, above the `INDEX` bits; in them the next call of the current
    /// job that nobody has taken.
    state: Line<AtomicU64>,
    /// Calls of the current job that are not finished, the caller's first apart.
    pending: Line<AtomicUsize>,
    job: UnsafeCell<Job>,
    stop: AtomicBool,
    /// Per worker: it sleeps, or is about to.
    asleep: Vec<Line<AtomicBool>>,
    /// What the first worker to panic in the current job panicked with.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is the only field that is not `Sync`. It is written only by the holder of
// `Pool::leader` while no call of a job is pending, and read only by who has taken a call of the
// current job (`take`), which happens after the write and ends before the next one. What it points
// to is `Sync` (bound of `Pool::run`).
unsafe impl Sync for Shared {}
// SAFETY: as above; nothing in it belongs to a particular thread.
unsafe impl Send for Shared {}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("state", &self.state).finish_non_exhaustive()
    }
}

/// Marks this thread as inside a job until dropped, also when the job panics.
struct Inside {
    before: bool,
}

impl Inside {
    fn enter() -> Inside {
        Inside { before: INSIDE.replace(true) }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(self.before);
    }
}

impl Pool {
    /// Starts `threads - 1` workers.
    ///
    /// # Panics
    ///
    /// If `threads` is 0 or the system refuses a thread.
    pub fn new(threads: usize) -> Pool {
        assert!(threads > 0, "a pool needs at least one thread");
        assert!(threads < 1 << INDEX, "more threads than a pool can count");
        let shared = Arc::new(Shared {
            calls: threads,
            state: Line(AtomicU64::new(threads as u64)),
            pending: Line::default(),
            job: UnsafeCell::new(Job { data: std::ptr::null(), call: |_, _| {} }),
            stop: AtomicBool::new(false),
            asleep: (1..threads).map(|_| Line::default()).collect(),
            panic: Mutex::new(None),
        });
        let workers = (1..threads)
            .map(|index| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new()
                    .name(format!("kernels-{index}"))
                    .spawn(move || shared.work(index))
                    .expect("the system refused a worker thread")
            })
            .collect();
        Pool { shared, workers, leader: Mutex::new(()) }
    }

    /// The number of workers, the calling thread included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `f(index)` once for each `index` in `0..threads()` and returns when all calls are done.
    ///
    /// Calls run in parallel, each on the first thread that is free, except for a `run` from inside a
    /// job (of any pool), which makes them one after another on its own thread. Jobs of several
    /// callers run one after another.
    ///
    /// # Panics
    ///
    /// With the payload of `f`, if a call panicked; the other calls still finish, and the pool stays
    /// usable.
    pub fn run<F: Fn(usize) + Sync>(&self, f: F) {
        if self.workers.is_empty() || INSIDE.get() {
            (0..self.threads()).for_each(f);
            return;
        }
        if let Err(payload) = self.run_parallel(&f) {
            resume_unwind(payload);
        }
    }

    /// Calls `job(index)` for each `index` in `0..count`: each thread begins with its own share, whose
    /// data it may have near, and then helps the others, because jobs differ in length and threads in
    /// luck.
    pub(crate) fn claim(&self, count: usize, job: impl Fn(usize) + Sync) {
        if count == 1 {
            // Nothing to share: waking the workers would cost more than many a small job.
            return job(0);
        }
        let shares = self.threads().min(SHARES);
        let done: [AtomicUsize; SHARES] = std::array::from_fn(|_| AtomicUsize::new(0));
        self.run(|thread| {
            for share in (0..shares).map(|i| (thread + i) % shares) {
                let (start, end) = (share * count / shares, (share + 1) * count / shares);
                loop {
                    let index = start + done[share].fetch_add(1, Ordering::Relaxed);
                    if index >= end {
                        break;
                    }
                    job(index);
                }
            }
        });
    }

    fn run_parallel<F: Fn(usize) + Sync>(&self, f: &F) -> std::thread::Result<()> {
        /// # Safety
        ///
        /// `data` must point to a live `F`.
        unsafe fn call<F: Fn(usize)>(data: *const (), index: usize) {
            // SAFETY: the caller promises it.
            let f = unsafe { &*data.cast::<F>() };
            f(index);
        }

        let shared = &*self.shared;
        // Every panic of a job is caught below, so a poisoned lock says nothing.
        let _leader = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: this thread leads, and nobody reads the job: each run waits for `pending` = 0.
        unsafe { *shared.job.get() = Job { data: std::ptr::from_ref(f).cast(), call: call::<F> } };
        shared.pending.0.store(shared.calls - 1, Ordering::Relaxed);
        shared.publish(1, &self.workers);
        let own = catch_unwind(AssertUnwindSafe(|| {
            let _inside = Inside::enter();
            f(0);
        }));
        // `f` is borrowed by the workers: nothing may leave this function before they are done.
        let inside = Inside::enter();
        shared.work_off();
        drop(inside);
        let mut spins = 0;
        while shared.pending.0.load(Ordering::Acquire) != 0 {
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                yield_now();
            }
        }
        let others = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        own.and(others.map_or(Ok(()), Err))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.publish(self.shared.calls, &self.workers);
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its jobs and has none of its own.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Announces a new job, whose calls from `first` on are to be taken, or `stop`, and wakes the
    /// workers that sleep.
    fn publish(&self, first: usize, workers: &[JoinHandle<()>]) {
        let epoch = (self.state.0.load(Ordering::Relaxed) >> INDEX) + 1;
        // Sequentially consistent against `asleep` then `state` in `next`: either the worker sees
        // the new state, or this thread sees that it sleeps.
        self.state.0.store(epoch << INDEX | first as u64, Ordering::SeqCst);
        for (worker, asleep) in workers.iter().zip(&self.asleep) {
            if asleep.0.load(Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
    }

    /// Takes the next call of the current job, if one is left.
    fn take(&self) -> Option<usize> {
        let mut state = self.state.0.load(Ordering::Acquire);
        loop {
            let index = (state & ((1 << INDEX) - 1)) as usize;
            if index >= self.calls {
                return None;
            }
            // The epoch is compared too: a call of a job that has ended cannot be taken.
            let taken = (Ordering::AcqRel, Ordering::Acquire);
            match self.state.0.compare_exchange_weak(state, state + 1, taken.0, taken.1) {
                Ok(_) => return Some(index),
                Err(now) => state = now,
            }
        }
    }

    /// Makes calls of the current job until none is left to take.
    fn work_off(&self) {
        while let Some(index) = self.take() {
            // SAFETY: the job was written before its calls could be taken, and is not written again
            // while this one is pending.
            let job = unsafe { *self.job.get() };
            // SAFETY: `run_parallel` keeps the closure alive while a call is pending.
            let result = catch_unwind(AssertUnwindSafe(|| unsafe { (job.call)(job.data, index) }));
            if let Err(payload) = result {
                let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(payload);
            }
            self.pending.0.fetch_sub(1, Ordering::Release);
        }
    }

    fn work(&self, index: usize) {
        let _inside = Inside::enter();
        let mut seen = 0;
        loop {
            seen = self.next(seen, index);
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            self.work_off();
        }
    }

    /// Waits until the epoch is no longer `seen` and returns it.
    fn next(&self, seen: u64, index: usize) -> u64 {
        let changed = |order| Some(self.state.0.load(order) >> INDEX).filter(|&now| now != seen);
        for _ in 0..SPINS {
            if let Some(epoch) = changed(Ordering::Acquire) {
                return epoch;
            }
            std::hint::spin_loop();
        }
        let idle_since = Instant::now();
        while idle_since.elapsed() < YIELD {
            if let Some(epoch) = changed(Ordering::Acquire) {
                return epoch;
            }
            yield_now();
        }
        let asleep = &self.asleep[index - 1].0;
        loop {
            asleep.store(true, Ordering::SeqCst);
            if let Some(epoch) = changed(Ordering::SeqCst) {
                asleep.store(false, Ordering::Relaxed);
                return epoch;
            }
            std::thread::park();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_claimed_is_done_once_also_from_inside_and_by_several_callers() {
        let pool = &Pool::new(3);
        let counts: &Vec<AtomicUsize> = &(0..40).map(|_| AtomicUsize::new(0)).collect();
        let rounds = if cfg!(miri) { 2 } else { 200 };
        std::thread::scope(|scope| {
            for caller in 0..2 {
                scope.spawn(move || {
                    for round in 0..rounds {
                        pool.claim((caller + round) % 5, |outer| {
                            pool.claim(4, |inner| {
                                let place = caller * 20 + outer * 4 + inner;
                                counts[place].fetch_add(1, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        for (place, count) in counts.iter().enumerate() {
            let (caller, outer) = (place / 20, place % 20 / 4);
            let expected = (0..rounds).filter(|round| (caller + round) % 5 > outer).count();
            assert_eq!(count.load(Ordering::Relaxed), expected, "{place}");
        }
    }

    #[test]
    fn a_panic_among_claimed_work_reaches_the_caller_and_all_else_is_done() {
        let pool = Pool::new(2);
        let done = AtomicUsize::new(0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.claim(8, |index| {
                assert_ne!(index, 7, "the last one");
                done.fetch_add(1, Ordering::Relaxed);
            });
        }));
        assert!(result.is_err());
        assert_eq!(done.load(Ordering::Relaxed), 7);
    }
}
