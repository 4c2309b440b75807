//! FoundationDB's C interface for the crate `foundationdb`, without linking its library.
//!
//! The published crate of this name links `libfdb_c.so`, so that a program does not start without it, and needs libclang
//! to build. This one has the same names, but opens the library when the engine is configured, so that one binary serves
//! every engine. It alone may use unsafe code. Types and options follow FoundationDB's API reference for version 730.

#![allow(non_camel_case_types, non_snake_case, reason = "the names of the C interface")]

mod api;
mod network;
mod options;

use std::ffi::{c_int, c_void};

pub use api::*;
pub use network::{StartError, is_started, start, stop};
pub use options::*;

/// The version of the interface that these declarations describe: that of release line 7.3.
pub const FDB_API_VERSION: u32 = 730;

pub type fdb_error_t = c_int;
pub type fdb_bool_t = c_int;

/// Types that the library alone looks into.
macro_rules! opaque {
    ($($name:ident as $alias:ident),* $(,)?) => {
        $(
            #[repr(C)]
            #[derive(Debug)]
            pub struct $name {
                _private: [u8; 0],
            }
            pub type $alias = $name;
        )*
    };
}

opaque! {
    FDB_future as FDBFuture,
    FDB_database as FDBDatabase,
    FDB_transaction as FDBTransaction,
}

pub type FDBCallback = Option<unsafe extern "C" fn(*mut FDBFuture, *mut c_void)>;

#[repr(C, packed(4))]
#[derive(Debug, Clone, Copy)]
pub struct FDBKey {
    pub key: *const u8,
    pub key_length: c_int,
}

#[repr(C, packed(4))]
#[derive(Debug, Clone, Copy)]
pub struct FDBKeyValue {
    pub key: *const u8,
    pub key_length: c_int,
    pub value: *const u8,
    pub value_length: c_int,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct FDBKeySelector {
    pub key: FDBKey,
    pub orEqual: fdb_bool_t,
    pub offset: c_int,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct FDBGetRangeReqAndResult {
    pub begin: FDBKeySelector,
    pub end: FDBKeySelector,
    pub data: *mut FDBKeyValue,
    pub m_size: c_int,
    pub m_capacity: c_int,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct FDBMappedKeyValue {
    pub key: FDBKey,
    pub value: FDBKey,
    pub getRange: FDBGetRangeReqAndResult,
    pub buffer: [u8; 32],
}

/// Chooses code by the version of the interface; here it is always the newest.
#[macro_export]
macro_rules! if_cfg_api_versions {
    (min = $min:tt, max = $max:tt => {$($then:tt)*} else {$($or:tt)*}) => {{ $($or)* }};
    (min = $min:tt, max = $max:tt => $($then:tt)*) => {};
    (min = $min:tt => {$($then:tt)*} else {$($or:tt)*}) => {{ $($then)* }};
    (min = $min:tt => $($then:tt)*) => { $($then)* };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structs_are_as_large_as_the_c_compiler_makes_them() {
        // On both architectures: pointers of eight octets, packed to four.
        assert_eq!((size_of::<FDBKey>(), size_of::<FDBKeyValue>()), (12, 24));
        assert_eq!((size_of::<FDBKeySelector>(), size_of::<FDBMappedKeyValue>()), (20, 112));
    }
}
