-- A recording as Unspool wrote it with schema 1 (the ten samples of recordings.small): its own CREATE TABLE statements and its rows.
CREATE TABLE recording ("schema" INTEGER NOT NULL, "unspool_version" VARCHAR NOT NULL, "started_ns" BIGINT NOT NULL, "monotonic_ns" BIGINT NOT NULL, "duration_ns" BIGINT, "hostname" VARCHAR NOT NULL, "kernel" VARCHAR NOT NULL, "arch" VARCHAR NOT NULL, "cpus" INTEGER NOT NULL, "frequency" DOUBLE NOT NULL, "trigger" VARCHAR NOT NULL, "command" VARCHAR NOT NULL, "finished" BOOLEAN NOT NULL);
CREATE TABLE machine ("key" VARCHAR NOT NULL, "value" VARCHAR NOT NULL);
CREATE TABLE counters ("name" VARCHAR NOT NULL, "value" BIGINT NOT NULL);
CREATE TABLE processes ("process" BIGINT NOT NULL, "pid" INTEGER NOT NULL, "start_ns" BIGINT NOT NULL, "comm" VARCHAR NOT NULL, "exe" VARCHAR, "parent" INTEGER, "exit_ns" BIGINT);
CREATE TABLE threads ("thread" BIGINT NOT NULL, "process" BIGINT NOT NULL, "tid" INTEGER NOT NULL, "comm" VARCHAR NOT NULL);
CREATE TABLE modules ("module" BIGINT NOT NULL, "path" VARCHAR NOT NULL, "build_id" VARCHAR, "kind" VARCHAR NOT NULL);
CREATE TABLE frames ("frame" BIGINT NOT NULL, "module" BIGINT, "address" UBIGINT NOT NULL, "offset" UBIGINT, "space" VARCHAR NOT NULL, "trust" VARCHAR NOT NULL, "symbol_state" VARCHAR);
CREATE TABLE symbols ("frame" BIGINT NOT NULL, "depth" INTEGER NOT NULL, "function" VARCHAR NOT NULL, "offset" BIGINT NOT NULL, "file" VARCHAR, "line" INTEGER, "inlined" BOOLEAN NOT NULL);
CREATE TABLE stacks ("stack" BIGINT NOT NULL, "frames" BIGINT[] NOT NULL, "kernel_frames" INTEGER NOT NULL, "ending" VARCHAR NOT NULL, "stop" VARCHAR NOT NULL, "stop_module" BIGINT, "verdict" VARCHAR NOT NULL, "reason" VARCHAR, "first_bad_frame" INTEGER);
CREATE TABLE samples ("time_ns" BIGINT NOT NULL, "process" BIGINT NOT NULL, "thread" BIGINT NOT NULL, "cpu" INTEGER NOT NULL, "trigger" VARCHAR NOT NULL, "detail" VARCHAR NOT NULL, "weight" BIGINT NOT NULL, "stack" BIGINT NOT NULL);
INSERT INTO recording VALUES
  (1, '0.1.0', 1700000000000000000, 100000000000, 1000000000, 'testhost', '6.18.0', 'x86_64', 2, 100.0, 'cpu', './demo --fast', true);
INSERT INTO machine VALUES
  ('cpu-model', 'Test CPU');
INSERT INTO counters VALUES
  ('lost-ring', 3),
  ('deferred', 1);
INSERT INTO processes VALUES
  (1, 10, 5, 'demo', '/usr/bin/demo', 1, 101000000000),
  (2, 20, 6, 'kworker/0:1', NULL, NULL, NULL);
INSERT INTO threads VALUES
  (1, 1, 10, 'demo'),
  (2, 1, 11, 'helper'),
  (3, 2, 20, 'kworker/0:1');
INSERT INTO modules VALUES
  (1, '/usr/bin/demo', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'file'),
  (2, '/usr/lib/libfoo.so', 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', 'file'),
  (3, '[kernel]', 'cccccccccccccccccccccccccccccccccccccccc', 'kernel');
INSERT INTO frames VALUES
  (1, 1, 139637976731648, 4096, 'user', 'cfi', 'named'),
  (2, 1, 139637976731904, 4352, 'user', 'cfi', 'named'),
  (3, 1, 139637976732160, 4608, 'user', 'registers', 'named'),
  (4, 3, 139637976732416, 4864, 'kernel', 'kernel', 'named'),
  (5, 1, 139637976732160, 4608, 'user', 'cfi', 'named'),
  (6, 2, 139637976732672, 5120, 'user', 'cfi', 'named'),
  (7, 2, 139637976764416, 36864, 'user', 'registers', 'no symbol table');
INSERT INTO symbols VALUES
  (1, 0, 'main', 4, '/src/demo.c', 10, false),
  (2, 0, 'work', 4, '/src/demo.c', 20, false),
  (3, 0, 'leaf', 4, '/src/demo.c', 30, false),
  (4, 0, 'ksys', 4, NULL, NULL, false),
  (5, 0, 'leaf', 4, '/src/demo.c', 30, false),
  (6, 0, 'read', 4, NULL, NULL, false);
INSERT INTO stacks VALUES
  (1, [3, 2, 1], 0, 'whole', 'end-process-entry', NULL, 'reliable', NULL, NULL),
  (2, [3, 5, 1], 0, 'whole', 'end-process-entry', NULL, 'reliable', NULL, NULL),
  (3, [4, 6, 1], 1, 'whole', 'end-process-entry', NULL, 'reliable', NULL, NULL),
  (4, [7], 0, 'cut', 'no-unwind-info', 2, 'unreliable', 'no-unwind-info', 0),
  (5, [4], 1, 'none', 'no-user-stack', NULL, 'none', NULL, NULL);
INSERT INTO samples VALUES
  (100000000000, 1, 1, 0, 'cpu', '', 1, 1),
  (100100000000, 1, 2, 1, 'cpu', '', 1, 1),
  (100200000000, 1, 1, 0, 'cpu', '', 1, 1),
  (100300000000, 1, 2, 1, 'cpu', '', 1, 1),
  (100400000000, 1, 1, 0, 'cpu', '', 1, 1),
  (100500000000, 1, 2, 1, 'cpu', '', 1, 2),
  (100600000000, 1, 1, 0, 'cpu', '', 1, 2),
  (100700000000, 1, 2, 1, 'cpu', '', 1, 3),
  (100800000000, 1, 1, 0, 'cpu', '', 1, 4),
  (100900000000, 2, 3, 1, 'cpu', '', 1, 5);
