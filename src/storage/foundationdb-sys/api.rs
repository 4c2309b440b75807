//! The functions of the library, each a forwarder to the address that was found when the library was opened.

use std::ffi::{c_char, c_int, c_void};
use std::sync::OnceLock;

use libloading::Library;

use super::{
    FDBCallback, FDBDatabase, FDBFuture, FDBKey, FDBKeyValue, FDBMappedKeyValue, FDBTransaction, fdb_bool_t,
    fdb_error_t,
};

/// Set once, before anything else can be called.
static API: OnceLock<Api> = OnceLock::new();

fn api() -> &'static Api {
    API.get().expect("the library is opened before its functions are called")
}

pub(crate) fn install(api: Api) {
    API.get_or_init(|| api);
}

/// The address of a function.
///
/// # Safety
/// `T` is the type of the function of this name.
pub(crate) unsafe fn symbol<T: Copy>(library: &Library, name: &'static str) -> Result<T, &'static str> {
    // SAFETY: the caller vouches for the type.
    unsafe { library.get::<T>(name.as_bytes()) }.map(|symbol| *symbol).map_err(|_| name)
}

/// For each function: its place in the table, its search by name, and a forwarder with its C name.
macro_rules! api {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)?;)*) => {
        /// The addresses of all functions.
        pub(crate) struct Api {
            $($name: unsafe extern "C" fn($($type),*) $(-> $result)?,)*
        }

        impl Api {
            /// Finds every function; the error names the first that is missing.
            pub(crate) fn of(library: &Library) -> Result<Self, &'static str> {
                // SAFETY: the types below are those of FoundationDB's API reference.
                Ok(Self { $($name: unsafe { symbol(library, stringify!($name)) }?,)* })
            }
        }

        $(
            /// # Safety
            /// As FoundationDB's API reference demands of its callers.
            #[allow(clippy::too_many_arguments, reason = "the signatures of the C interface")]
            pub unsafe fn $name($($argument: $type),*) $(-> $result)? {
                // SAFETY: the caller keeps the rules of the C function.
                unsafe { (api().$name)($($argument),*) }
            }
        )*
    };
}

type Database = *mut FDBDatabase;
type Future = *mut FDBFuture;
type Transaction = *mut FDBTransaction;
/// The first octet of a key or value, followed by its length in the next argument.
type Octets = *const u8;

api! {
    fn fdb_get_error(code: fdb_error_t) -> *const c_char;
    fn fdb_error_predicate(predicate: c_int, code: fdb_error_t) -> fdb_bool_t;
    fn fdb_get_max_api_version() -> c_int;
    fn fdb_select_api_version_impl(runtime: c_int, header: c_int) -> fdb_error_t;
    fn fdb_network_set_option(option: u32, value: Octets, length: c_int) -> fdb_error_t;
    fn fdb_setup_network() -> fdb_error_t;
    fn fdb_run_network() -> fdb_error_t;
    fn fdb_stop_network() -> fdb_error_t;
    fn fdb_future_destroy(future: Future);
    fn fdb_future_is_ready(future: Future) -> fdb_bool_t;
    fn fdb_future_set_callback(future: Future, callback: FDBCallback, parameter: *mut c_void) -> fdb_error_t;
    fn fdb_future_get_error(future: Future) -> fdb_error_t;
    fn fdb_future_get_int64(future: Future, out: *mut i64) -> fdb_error_t;
    fn fdb_future_get_key(future: Future, out: *mut Octets, length: *mut c_int) -> fdb_error_t;
    fn fdb_future_get_value(future: Future, is_present: *mut fdb_bool_t, out: *mut Octets, length: *mut c_int) -> fdb_error_t;
    fn fdb_future_get_keyvalue_array(
        future: Future, out: *mut *const FDBKeyValue, count: *mut c_int, more: *mut fdb_bool_t,
    ) -> fdb_error_t;
    fn fdb_future_get_mappedkeyvalue_array(
        future: Future, out: *mut *const FDBMappedKeyValue, count: *mut c_int, more: *mut fdb_bool_t,
    ) -> fdb_error_t;
    fn fdb_future_get_key_array(future: Future, out: *mut *const FDBKey, count: *mut c_int) -> fdb_error_t;
    fn fdb_future_get_string_array(future: Future, out: *mut *mut *const c_char, count: *mut c_int) -> fdb_error_t;
    fn fdb_create_database(cluster_file: *const c_char, out: *mut Database) -> fdb_error_t;
    fn fdb_database_destroy(database: Database);
    fn fdb_database_set_option(database: Database, option: u32, value: Octets, length: c_int) -> fdb_error_t;
    fn fdb_database_create_transaction(database: Database, out: *mut Transaction) -> fdb_error_t;
    fn fdb_database_get_main_thread_busyness(database: Database) -> f64;
    fn fdb_database_get_client_status(database: Database) -> Future;
    fn fdb_transaction_destroy(transaction: Transaction);
    fn fdb_transaction_cancel(transaction: Transaction);
    fn fdb_transaction_reset(transaction: Transaction);
    fn fdb_transaction_set_option(transaction: Transaction, option: u32, value: Octets, length: c_int) -> fdb_error_t;
    fn fdb_transaction_set_read_version(transaction: Transaction, version: i64);
    fn fdb_transaction_get_read_version(transaction: Transaction) -> Future;
    fn fdb_transaction_get(transaction: Transaction, key: Octets, length: c_int, snapshot: fdb_bool_t) -> Future;
    fn fdb_transaction_get_key(
        transaction: Transaction, key: Octets, length: c_int, or_equal: fdb_bool_t, offset: c_int, snapshot: fdb_bool_t,
    ) -> Future;
    fn fdb_transaction_get_addresses_for_key(transaction: Transaction, key: Octets, length: c_int) -> Future;
    fn fdb_transaction_get_range(
        transaction: Transaction,
        begin: Octets, begin_length: c_int, begin_or_equal: fdb_bool_t, begin_offset: c_int,
        end: Octets, end_length: c_int, end_or_equal: fdb_bool_t, end_offset: c_int,
        limit: c_int, target_bytes: c_int, mode: i32, iteration: c_int, snapshot: fdb_bool_t, reverse: fdb_bool_t,
    ) -> Future;
    fn fdb_transaction_get_mapped_range(
        transaction: Transaction,
        begin: Octets, begin_length: c_int, begin_or_equal: fdb_bool_t, begin_offset: c_int,
        end: Octets, end_length: c_int, end_or_equal: fdb_bool_t, end_offset: c_int,
        mapper: Octets, mapper_length: c_int,
        limit: c_int, target_bytes: c_int, mode: i32, iteration: c_int, snapshot: fdb_bool_t, reverse: fdb_bool_t,
    ) -> Future;
    fn fdb_transaction_set(transaction: Transaction, key: Octets, key_length: c_int, value: Octets, value_length: c_int);
    fn fdb_transaction_atomic_op(
        transaction: Transaction, key: Octets, key_length: c_int, argument: Octets, argument_length: c_int, operation: u32,
    );
    fn fdb_transaction_clear(transaction: Transaction, key: Octets, length: c_int);
    fn fdb_transaction_clear_range(
        transaction: Transaction, begin: Octets, begin_length: c_int, end: Octets, end_length: c_int,
    );
    fn fdb_transaction_watch(transaction: Transaction, key: Octets, length: c_int) -> Future;
    fn fdb_transaction_commit(transaction: Transaction) -> Future;
    fn fdb_transaction_get_committed_version(transaction: Transaction, out: *mut i64) -> fdb_error_t;
    fn fdb_transaction_get_approximate_size(transaction: Transaction) -> Future;
    fn fdb_transaction_get_versionstamp(transaction: Transaction) -> Future;
    fn fdb_transaction_on_error(transaction: Transaction, code: fdb_error_t) -> Future;
    fn fdb_transaction_add_conflict_range(
        transaction: Transaction, begin: Octets, begin_length: c_int, end: Octets, end_length: c_int, kind: u32,
    ) -> fdb_error_t;
    fn fdb_transaction_get_estimated_range_size_bytes(
        transaction: Transaction, begin: Octets, begin_length: c_int, end: Octets, end_length: c_int,
    ) -> Future;
    fn fdb_transaction_get_range_split_points(
        transaction: Transaction, begin: Octets, begin_length: c_int, end: Octets, end_length: c_int, chunk: i64,
    ) -> Future;
}
