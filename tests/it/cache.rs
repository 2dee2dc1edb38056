//! Which replies are used again, by whom, and which never are? Battery T10.

mod crowd; //  many who ask for the same at once
mod people; // callers with tokens
mod poison; // what tells calls apart, through the whole gateway
mod reads; //  half a million reads
mod stage; //  the cache before a stage that a test holds in its hand
mod truth; //  what makes replies untrue, and how old they may be
