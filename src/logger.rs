//! Messages on stderr.
macro_rules! say { ($($a:tt)*) => { { let _ = format!($($a)*); } } }
pub(crate) use {say as warn, say as info, say as error};
