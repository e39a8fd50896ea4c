# shellcheck shell=bash
# Sourced by `stack` after mysql.sh: initialize, start, stop and kill one instance's mysqld.

MYSQL_START_SECS=120
# Durability is MySQL's default (innodb_flush_log_at_trx_commit=1, sync_binlog=1): the promises under test are about it.
MYSQL_OPTIONS=(--bind-address=127.0.0.1 --mysqlx=OFF --secure-file-priv=NULL --max-connections=2000
    "--innodb-buffer-pool-size=${MYSQL_BUFFER_POOL_MIB:-512}M" --innodb-redo-log-capacity=1G --default-time-zone=+00:00)
# For tests that create hundreds of databases and never kill mysqld: a commit does not wait for the disk, and a table
# is not a file of its own.
MYSQL_RELAXED=(--innodb-flush-log-at-trx-commit=2 --sync-binlog=0 --innodb-doublewrite=OFF --innodb-file-per-table=OFF)

case ${MYSQL_DURABILITY:-full} in
    full) ;;
    relaxed) MYSQL_OPTIONS+=("${MYSQL_RELAXED[@]}") ;;
    *) say mysql "error: MYSQL_DURABILITY is '$MYSQL_DURABILITY', must be full or relaxed"; exit 2 ;;
esac

mysql_initialize() {
    local start user=()
    [[ -d $mysql_dir/data ]] && return 0
    ((EUID)) || user=(--user=root)
    start=$(now_ds)
    rm -rf "$mysql_dir/data.new"
    mkdir -p "$mysql_dir"
    say mysql "initializing the data folder"
    if ! "${mysqld[@]}" "${user[@]}" --initialize-insecure "--datadir=$mysql_dir/data.new" \
        >"$mysql_dir/initialize.log" 2>&1 7>&- 8>&- 9>&-; then
        tail -n 20 "$mysql_dir/initialize.log" >&2
        die mysql "could not initialize its data folder; the end of $mysql_dir/initialize.log is above"
    fi
    mv "$mysql_dir/data.new" "$mysql_dir/data"
    say mysql "initialized in $(elapsed "$start"), $(megabytes "$mysql_dir/data") MB"
}

# A socket's path may have 107 bytes at most; a deep checkout gets a short folder elsewhere.
mysql_socket() {
    local socket=$mysql_dir/mysqld.sock short
    if ((${#socket} > 100)); then
        short=$(read_file "$mysql_dir/socket_dir")
        if [[ ! -d $short ]]; then
            short=$(mktemp -d "${TMPDIR:-/tmp}/returns-XXXXXX")
            echo "$short" >"$mysql_dir/socket_dir"
        fi
        socket=$short/mysqld.sock
    fi
    echo "$socket"
}

# The statement is also the readiness check. It uses the socket, because another process could have the port.
mysql_create_database() {
    "${mysql[@]}" --user=root "--socket=$mysql_sock" --connect-timeout=2 \
        -e "CREATE DATABASE IF NOT EXISTS $MYSQL_DATABASE CHARACTER SET utf8mb4" 2>/dev/null
}

# mysql_start_on PORT: returns 1 if mysqld exited; it exits when it cannot bind.
mysql_start_on() {
    local user=()
    # mysqld refuses to run as root unless the option --user names root.
    ((EUID)) || user=(--user=root)
    mysql_sock=$(mysql_socket)
    # After kill -9 the pid in the lock file may belong to another process.
    rm -f "$mysql_sock" "$mysql_sock.lock"
    echo "$1" >"$mysql_dir/port"
    launch "$mysql_pid_file" "$mysql_log" "${mysqld[@]}" "${user[@]}" "${MYSQL_OPTIONS[@]}" \
        "$mysql_needle" "--port=$1" "--socket=$mysql_sock" "--pid-file=$mysql_dir/mysqld.pid"
    wait_ready mysql "$MYSQL_START_SECS" "$mysql_pid_file" "$mysql_needle" "$mysql_log" mysql_create_database
}

mysql_up() {
    local start attempt port
    if mysql_running >/dev/null; then
        say mysql "already running, port $(read_file "$mysql_dir/port"), pid $(mysql_running)"
        return 0
    fi
    mysql_software
    mysql_initialize
    for attempt in 1 2 3; do
        start=$(now_ds)
        # The second and third attempt take another port: the first one may have been lost in a race.
        port=$(read_file "$mysql_dir/port")
        ((attempt == 1)) || port=
        port=$(pick_port "$port")
        if mysql_start_on "$port"; then
            say mysql "started in $(elapsed "$start"), port $port, pid $(mysql_running)"
            return 0
        fi
        grep -q 'Bind on TCP/IP port' "$mysql_log" || break
        say mysql "port $port was taken in the meantime: trying another"
    done
    tail -n 20 "$mysql_log" >&2
    die mysql "did not start; the end of $mysql_log is above"
}

# Start again after a stop or kill, on the same port and data: clients keep their DATABASE_URL.
mysql_start_again() {
    local start port
    port=$(read_file "$mysql_dir/port")
    [[ -n $port && -d $mysql_dir/data ]] || die mysql "this instance was never up"
    if mysql_running >/dev/null; then say mysql "already running, pid $(mysql_running)"; return 0; fi
    mysql_software
    start=$(now_ds)
    if ! mysql_start_on "$port"; then
        tail -n 20 "$mysql_log" >&2
        die mysql "did not start again on port $port; the end of $mysql_log is above"
    fi
    say mysql "started again in $(elapsed "$start"), port $port, pid $(mysql_running)"
}

mysql_stop() { stop_process mysql "$mysql_pid_file" "$mysql_needle" "${1:-TERM}"; }

mysql_forget_socket() {
    local short
    short=$(read_file "$mysql_dir/socket_dir")
    [[ -n $short ]] || return 0
    rm -rf "$short" "$mysql_dir/socket_dir"
}

# An interactive client, or one statement: stack mysql client dev -e 'SHOW TABLES'.
mysql_client() {
    mysql_running >/dev/null || die mysql "not running; start it with: stack up $instance"
    mysql_software
    mysql_sock=$(mysql_socket)
    exec "${mysql[@]}" --user=root "--socket=$mysql_sock" "$@" "$MYSQL_DATABASE" 7>&- 8>&- 9>&-
}
