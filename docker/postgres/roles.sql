-- Run once by the superuser, when the database is made. Three roles, none of which may do more than its work needs:
--   allocsearch_owner      owns the tables; used by `allocsearch db upgrade` alone
--   allocsearch_driver     reads and writes rows
--   allocsearch_dashboard  reads rows
-- The passwords come from files, so that they stand in no command line and no environment.
\set ON_ERROR_STOP on
\set owner_password `cat /run/secrets/postgres_owner`
\set driver_password `cat /run/secrets/postgres_driver`
\set dashboard_password `cat /run/secrets/postgres_dashboard`

BEGIN;
CREATE ROLE allocsearch_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE allocsearch_driver LOGIN PASSWORD :'driver_password';
CREATE ROLE allocsearch_dashboard LOGIN PASSWORD :'dashboard_password';

SELECT current_database() AS database \gset
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"database" TO allocsearch_owner, allocsearch_driver, allocsearch_dashboard;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO allocsearch_owner;
GRANT USAGE ON SCHEMA public TO allocsearch_driver, allocsearch_dashboard;

-- For all tables that the owner is going to make.
ALTER DEFAULT PRIVILEGES FOR ROLE allocsearch_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO allocsearch_driver;
ALTER DEFAULT PRIVILEGES FOR ROLE allocsearch_owner IN SCHEMA public
    GRANT USAGE ON SEQUENCES TO allocsearch_driver;
ALTER DEFAULT PRIVILEGES FOR ROLE allocsearch_owner IN SCHEMA public
    GRANT SELECT ON TABLES TO allocsearch_dashboard;
COMMIT;
