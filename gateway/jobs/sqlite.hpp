// SQLite's C interface as owners and Results: a connection with its prepared statements, a query, a
// transaction. Used by job_database alone. Every call may block on storage; one thread at a time.
#pragma once

#include "diskferry/error.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

struct sqlite3;
struct sqlite3_stmt;

namespace diskferry::sqlite {

class Database {
 public:
  /// Opens an existing file for reading and writing. Errors: corrupt, permission, read_only, io, not_found.
  static Result<Database> open(std::string path);
  Database(Database&&) noexcept = default;
  Database& operator=(Database&&) noexcept = default;
  ~Database() = default;

  /// Runs statements that give no rows, or whose rows nobody wants. `sql` is ours, never somebody's input.
  Result<void> execute(const std::string& sql);
  /// The number a one-row statement gives ("PRAGMA user_version").
  Result<std::int64_t> number(const char* sql);
  /// Rows that the last statement changed.
  std::uint64_t changes() const noexcept;
  /// A statement was begun that must be ended.
  bool is_in_transaction() const noexcept;
  /// What the last call met, in our words. A full disk is no_space, a damaged file corrupt.
  Error error(std::string operation) const;

 private:
  friend class Query;
  struct Close {
    void operator()(sqlite3* connection) const noexcept;
    void operator()(sqlite3_stmt* statement) const noexcept;
  };
  explicit Database(std::string path) : path_(std::move(path)) {}
  /// The prepared form of a text that lives as long as the program.
  Result<sqlite3_stmt*> prepared(const char* sql);

  std::string path_;
  std::unique_ptr<sqlite3, Close> connection_;
  // After the connection: statements go first.
  std::map<const char*, std::unique_ptr<sqlite3_stmt, Close>> statements_;
};

/// One use of a prepared statement. What goes wrong on the way is told by next() or run().
/// Lifetime: the database and every text that was bound outlive it. One at a time for each text of SQL.
class Query {
 public:
  /// `sql`: a literal; it is prepared once for each connection.
  Query(Database& database, const char* sql);
  ~Query();
  Query(const Query&) = delete;
  Query& operator=(const Query&) = delete;

  /// Gives the next parameter its value.
  Query& with(std::int64_t value);
  Query& with(std::string_view text);
  /// True when there is a row, false after the last one.
  Result<bool> next();
  /// For statements without rows.
  Result<void> run();
  /// Of the current row.
  std::int64_t integer(int column) const;
  std::string text(int column) const;

 private:
  Database& database_;
  sqlite3_stmt* statement_ = nullptr;
  int bound_ = 0;
  Result<void> state_;
};

/// All or nothing: what is not committed when this ends never happened.
class Transaction {
 public:
  static Result<Transaction> begin(Database& database);
  Transaction(Transaction&& other) noexcept : database_(std::exchange(other.database_, nullptr)) {}
  Transaction& operator=(Transaction&&) = delete;
  ~Transaction();
  /// What was written is durable when this returns. Errors: no_space, io; then nobody here sees it, and a
  /// process that comes after a crash may, unless another transaction was written after it.
  Result<void> commit();

 private:
  explicit Transaction(Database& database) : database_(&database) {}
  Database* database_;
};

}  // namespace diskferry::sqlite
