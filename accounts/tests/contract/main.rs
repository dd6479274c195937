//! One suite for every store: SQLite in a file, and a real MariaDB server of our own.

mod mariadb;
mod mariadb_commit;
mod mariadb_only;
mod mariadb_pool;
mod sqlite_only;
mod suite;

/// Makes one test of each store for every case of the suite.
macro_rules! contract {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            $(#[test]
            fn $case() {
                let dir = tempfile::tempdir().unwrap();
                let settings = accounts::StoreSettings::sqlite(dir.path().join("accounts.sqlite"));
                accounts::create_store(&settings, None).unwrap();
                crate::suite::$case(&settings);
            })+
        }
        /// One server for all cases, a database for each.
        #[test]
        fn mysql() {
            let server = crate::mariadb::with_user(e2e::kit::MariaDb::start());
            $({
                let case = stringify!($case);
                eprintln!("case {case}");
                let settings = crate::mariadb::over_socket(&server, case);
                accounts::create_store(&settings, None).unwrap();
                crate::suite::$case(&settings);
            })+
        }
    };
}

contract!(
    found_inactive_and_absent,
    every_field_comes_back,
    a_second_insert_is_refused,
    updates_move_between_active_and_inactive,
    deleting_takes_everything_along,
    new_passwords_and_withdrawals,
    deleting_a_domain,
    pages_in_order,
    aliases_by_line,
    limits_of_domains_and_users,
    own_ids,
    last_events,
    relay_window,
    hostile_strings_are_values,
    concurrent_writers,
    values_too_long_are_not_cut,
);
