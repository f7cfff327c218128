//! Keys and values of one sequence, one buffer pair per layer, truncatable to any length.

use specexit_kernels::{Kernels, KeysValues, Precision, bf16};

/// The key/value cache of one sequence.
///
/// Each layer holds keys and values position-major, `[len, kv_heads * head_dim]`, so that truncating
/// is a change of length and appending never moves what is there except when a buffer grows. They are
/// kept in the numbers that linear layers multiply with: bf16 under [`Precision::Bf16`], else f32.
#[derive(Clone, Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    width: usize,
    len: usize,
}

#[derive(Clone, Debug)]
enum LayerCache {
    F32(Pair<f32>),
    Bf16(Pair<bf16>),
}

#[derive(Clone, Debug)]
struct Pair<T> {
    keys: Vec<T>,
    values: Vec<T>,
}

/// The same for either kind of number.
macro_rules! each {
    ($layer:expr, $pair:ident => $what:expr) => {
        match $layer {
            LayerCache::F32($pair) => $what,
            LayerCache::Bf16($pair) => $what,
        }
    };
}

impl<T: Copy> Pair<T> {
    const EMPTY: Self = Pair { keys: Vec::new(), values: Vec::new() };

    fn truncate(&mut self, len: usize) {
        self.keys.truncate(len);
        self.values.truncate(len);
    }

    fn first(&self, len: usize) -> Self {
        Pair { keys: self.keys[..len].to_vec(), values: self.values[..len].to_vec() }
    }

    fn reserve(&mut self, more: usize) {
        self.keys.reserve_exact(more);
        self.values.reserve_exact(more);
    }

    fn shrink(&mut self) {
        self.keys.shrink_to_fit();
        self.values.shrink_to_fit();
    }
}

impl KvCache {
    /// An empty cache for `layers` layers of `width = kv_heads * head_dim` numbers a position.
    pub fn new(layers: usize, width: usize, precision: Precision) -> KvCache {
        let empty = match precision {
            Precision::F32 => LayerCache::F32(Pair::EMPTY),
            Precision::Bf16 => LayerCache::Bf16(Pair::EMPTY),
        };
        KvCache { layers: vec![empty; layers], width, len: 0 }
    }

    /// Bytes that one position of such a cache takes.
    pub(crate) fn bytes_per_token(layers: usize, width: usize, precision: Precision) -> usize {
        let number = match precision {
            Precision::F32 => size_of::<f32>(),
            Precision::Bf16 => size_of::<bf16>(),
        };
        layers * 2 * width * number
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no position is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets every position from `len` on; a longer `len` changes nothing.
    pub fn truncate(&mut self, len: usize) {
        if len >= self.len {
            return;
        }
        for layer in &mut self.layers {
            each!(layer, pair => pair.truncate(len * self.width));
        }
        self.len = len;
    }

    /// A copy of the first `len` positions (all of them when fewer are held).
    pub fn fork(&self, len: usize) -> KvCache {
        let len = len.min(self.len);
        let end = len * self.width;
        let layers = self.layers.iter().map(|layer| match layer {
            LayerCache::F32(pair) => LayerCache::F32(pair.first(end)),
            LayerCache::Bf16(pair) => LayerCache::Bf16(pair.first(end)),
        });
        KvCache { layers: layers.collect(), width: self.width, len }
    }

    /// Makes room for `positions` in all, so that appending up to there moves nothing and holds no more memory
    /// than [`KvCache::bytes`] will then say.
    pub fn reserve(&mut self, positions: usize) {
        let more = positions.saturating_sub(self.len) * self.width;
        for layer in &mut self.layers {
            each!(layer, pair => pair.reserve(more));
        }
    }

    /// Gives back the room beyond what is held.
    pub fn shrink(&mut self) {
        for layer in &mut self.layers {
            each!(layer, pair => pair.shrink());
        }
    }

    /// Bytes held by keys and values.
    pub fn bytes(&self) -> usize {
        let of_layer = |layer: &LayerCache| match layer {
            LayerCache::F32(_) => size_of::<f32>(),
            LayerCache::Bf16(_) => size_of::<bf16>(),
        };
        self.layers.iter().map(of_layer).sum::<usize>() * 2 * self.len * self.width
    }

    /// Appends one position to `layer`: `key` and `value` are `[kv_heads * head_dim]`.
    ///
    /// Every layer must be given the same positions before [`KvCache::advance`] counts them.
    pub(crate) fn push(&mut self, kernels: &Kernels, layer: usize, key: &[f32], value: &[f32]) {
        debug_assert_eq!(key.len(), self.width);
        match &mut self.layers[layer] {
            LayerCache::F32(pair) => {
                pair.keys.extend_from_slice(key);
                pair.values.extend_from_slice(value);
            }
            LayerCache::Bf16(pair) => {
                for (to, from) in [(&mut pair.keys, key), (&mut pair.values, value)] {
                    let len = to.len();
                    to.resize(len + from.len(), bf16::ZERO);
                    kernels.round(&mut to[len..], from);
                }
            }
        }
    }

    /// Counts `rows` positions that [`KvCache::push`] added to every layer.
    pub(crate) fn advance(&mut self, rows: usize) {
        self.len += rows;
        let numbers = self.len * self.width;
        debug_assert!(self.layers.iter().all(|l| each!(l, pair => pair.keys.len() == numbers)));
    }

    /// Keys and values of `layer`, those pushed but not yet counted included.
    pub(crate) fn layer(&self, layer: usize) -> KeysValues<'_> {
        match &self.layers[layer] {
            LayerCache::F32(Pair { keys, values }) => KeysValues::F32 { keys, values },
            LayerCache::Bf16(Pair { keys, values }) => KeysValues::Bf16 { keys, values },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(positions: usize, precision: Precision) -> KvCache {
        let mut cache = KvCache::new(2, 3, precision);
        for p in 0..positions {
            append(&mut cache, p);
        }
        cache
    }

    fn append(cache: &mut KvCache, p: usize) {
        let kernels = Kernels::new(1, Precision::F32);
        for layer in 0..2 {
            // Not a bf16 number, and rounded up.
            let number = p as f32 + 3.0 / 1024.0;
            cache.push(&kernels, layer, &[number; 3], &[-number; 3]);
        }
        cache.advance(1);
    }

    /// Keys, values and their capacities, as f32.
    fn numbers(cache: &KvCache, layer: usize) -> ([Vec<f32>; 2], [usize; 2]) {
        let wide = |x: &Vec<bf16>| x.iter().map(|x| x.to_f32()).collect();
        match &cache.layers[layer] {
            LayerCache::F32(Pair { keys, values }) => {
                ([keys.clone(), values.clone()], [keys.capacity(), values.capacity()])
            }
            LayerCache::Bf16(Pair { keys, values }) => {
                ([wide(keys), wide(values)], [keys.capacity(), values.capacity()])
            }
        }
    }

    const BOTH: [Precision; 2] = [Precision::F32, Precision::Bf16];

    #[test]
    fn numbers_are_kept_or_rounded_to_the_nearest() {
        let wanted = 1.0 + 3.0 / 1024.0;
        let found = numbers(&filled(2, Precision::F32), 0).0;
        assert_eq!((found[0][3], found[1][5]), (wanted, -wanted));
        let found = numbers(&filled(2, Precision::Bf16), 0).0;
        let rounded = bf16::from_f32(wanted).to_f32();
        assert_eq!((found[0][3], found[1][5]), (rounded, -rounded));
    }

    #[test]
    fn bytes_are_those_of_the_numbers() {
        for (precision, number) in BOTH.into_iter().zip([4, 2]) {
            let cache = filled(5, precision);
            assert_eq!(cache.bytes(), 2 * 2 * 5 * 3 * number);
            assert_eq!(cache.bytes(), 5 * KvCache::bytes_per_token(2, 3, precision));
        }
    }

    #[test]
    fn truncate_and_append_equals_never_having_had_more() {
        for precision in BOTH {
            let mut cache = filled(7, precision);
            cache.truncate(3);
            cache.truncate(5);
            assert_eq!(cache.len(), 3);
            assert_eq!(numbers(&cache, 1).0, numbers(&filled(3, precision), 1).0);
            append(&mut cache, 3);
            assert_eq!(numbers(&cache, 0).0, numbers(&filled(4, precision), 0).0);
        }
    }

    #[test]
    fn room_is_for_exactly_what_was_reserved_and_can_be_given_back() {
        for precision in BOTH {
            let mut cache = filled(3, precision);
            cache.reserve(50);
            for p in 3..50 {
                append(&mut cache, p);
            }
            assert_eq!(numbers(&cache, 1).1, [150, 150]);
            assert_eq!(numbers(&cache, 0).0, numbers(&filled(50, precision), 0).0);
            cache.truncate(7);
            cache.reserve(2);
            cache.shrink();
            assert_eq!((numbers(&cache, 0).1, cache.len()), ([21, 21], 7));
            assert_eq!(numbers(&cache, 1).0, numbers(&filled(7, precision), 1).0);
        }
    }

    #[test]
    fn fork_copies_a_prefix() {
        for precision in BOTH {
            let fork = filled(5, precision).fork(2);
            assert_eq!(fork.len(), 2);
            assert_eq!(numbers(&fork, 0).0, numbers(&filled(2, precision), 0).0);
            assert_eq!(filled(2, precision).fork(9).len(), 2);
        }
    }
}
