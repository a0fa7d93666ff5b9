// SPDX-License-Identifier: Apache-2.0
// The contract of an op: what it takes and gives, said once (ops.cpp).
//
// Each argument is a name, a shape or a range, and the field of the kernels' record that it fills;
// the field's type says the dtype, and whether the kernel writes there. Checks, the words of
// errors, allocation and marshalling follow from that (call.cpp), and in Python the schema and the
// results where sizes are symbols (free/ops/contract.py).
//
// A shape is a list of axes: "B W ..." has letters for sizes. The first argument that has a letter
// binds it, and the others are compared: "W-1", "B*K", a number, "V>=W" (at least W). "..." stands
// for one axis or more, "...?" for any number. "> 0" at the end says that no axis is empty.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "cuda/kernels.h"

namespace free_dit {

/// times * (letter + plus); a number where there is no letter. Where there is `open`, the least.
struct Axis {
  char times = 0;
  char letter = 0;
  std::int64_t plus = 0;
  char open = 0;
};

struct Shape {
  enum class Rest { kNone, kSome, kAny };
  std::vector<Axis> axes;
  Rest rest = Rest::kNone;
  bool filled = false;

  Shape() = default;
  explicit Shape(const char* text);
};

/// What the letters stand for.
struct Sizes {
  std::array<std::int64_t, 26> bound;
  const std::int64_t* rest = nullptr;  // the first of those that "..." stands for
  const std::int64_t* rest_end = nullptr;
  std::uint32_t fresh = 0;  // bits of letters that the last shape bound

  Sizes() { bound.fill(-1); }
  std::int64_t& of(char letter) { return bound[static_cast<std::size_t>(letter - 'A')]; }
  std::int64_t of(char letter) const { return bound[static_cast<std::size_t>(letter - 'A')]; }
  bool was_known(char letter) const {
    return letter == 0 || (of(letter) >= 0 && (fresh >> (letter - 'A') & 1u) == 0);
  }
  std::int64_t value(const Axis& axis) const;
  /// Binds what is free; false for what does not fit.
  bool fits(const Axis& axis, std::int64_t extent);
  bool fits(const Shape& shape, const std::int64_t* extents, int axes);
  std::vector<std::int64_t> extents(const Shape& shape) const;
  /// Elements of a tensor of this shape.
  std::int64_t count(const Shape& shape) const;
  /// The shape that did not fit as an error says it, with letters for what was not known before.
  std::string text(const Shape& shape) const;
};

/// The first three, as Float has them, are those that networks answer in; kFloating is any of them.
enum class Type { kFloat32, kFloat16, kBfloat16, kFloat64, kInt32, kInt64, kFloating };
constexpr const char* kTypeNames[] = {
    "float32", "float16", "bfloat16", "float64", "int32", "int64", "float32, float16 or bfloat16"};

template <class T>
constexpr Type type_of() {
  return std::is_same_v<T, float>          ? Type::kFloat32
         : std::is_same_v<T, double>       ? Type::kFloat64
         : std::is_same_v<T, std::int32_t> ? Type::kInt32
         : std::is_same_v<T, std::int64_t> ? Type::kInt64
                                           : Type::kFloating;
}

struct Argument {
  enum class Kind { kTensor, kInteger, kNumber, kFlag, kChoice };
  Kind kind = Kind::kTensor;
  std::string name;
  std::size_t field = 0;  // its offset in the record
  bool optional = false;

  // A tensor.
  Type type = Type::kFloating;
  bool written = false;  // in place, or as a result
  Shape shape;
  std::string group;           // optional ones of a group are all there, or none
  std::size_t type_field = 0;  // of networks' answers, where the record has their type

  // A value.
  char binds = 0;  // this letter is its value; of an optional one, 2 with it and 1 without
  std::int64_t low = 0, high = 0;
  Shape highest;                   // an integer's upper limit where that depends on sizes
  double least = 0.0, most = 0.0;  // a number's
  std::vector<const char*> choices;
  void (*store_integer)(void* field, std::int64_t value) = [](void*, std::int64_t) {};
  void (*store_number)(void* field, double value) = nullptr;
};

/// What a call holds of its arguments and its record.
constexpr std::size_t kMostArguments = 16;
constexpr std::size_t kMostBytes = 512;

constexpr std::int64_t kAny = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kWord = std::numeric_limits<std::uint32_t>::max();

struct Op {
  std::string name;
  std::vector<Argument> arguments;
  std::vector<Argument> results;
  std::vector<std::pair<std::size_t, Shape>> counts;  // fields that hold sizes
  std::size_t record_size = 0;

  // What is done with a record; workspace says bytes.
  std::function<void(void*)> init, prepare = [](void*) {}, check = [](void*) {}, cpu;
  std::function<std::int64_t(void*)> workspace = [](void*) { return 0; };
  std::function<void(void*, void*, const cuda::Queue&)> cuda;
};

template <class T>
constexpr auto kStore = [](void* field, auto value) { *static_cast<T*>(field) = T(value); };

/// Writes an Op for kernels that are given a Record.
template <class Record>
class Declare {
 public:
  explicit Declare(const char* name) {
    static_assert(std::is_trivially_copyable_v<Record> && sizeof(Record) <= kMostBytes);
    op_.name = name;
    op_.record_size = sizeof(Record);
    op_.init = [](void* at) { new (at) Record{}; };
  }

  /// Read by the kernel, or changed in place if the field is a pointer to what is not const.
  template <class C, class T>
  Declare& tensor(const char* name, const char* shape, T* C::* field, const char* group = nullptr) {
    op_.arguments.push_back(described(name, shape, field, group));
    return *this;
  }
  /// None, or all of a group are.
  template <class C, class T>
  Declare& maybe(const char* name, const char* shape, T* C::* field, const char* group = "") {
    return tensor(name, shape, field, group);
  }
  /// In a type that networks answer in.
  template <class C>
  Declare& answers(const char* name, const char* shape, const void* C::* field, Float C::* type) {
    tensor(name, shape, field);
    op_.arguments.back().type_field = offset(type);
    return *this;
  }
  template <class C, class T>
  Declare& result(const char* name, const char* shape, T* C::* field, const char* group = nullptr) {
    op_.results.push_back(described(name, shape, field, group));
    return *this;
  }

  template <class C, class T>
  Declare& integer(const char* name, std::int64_t low, std::int64_t high, T C::* field,
                   char binds = 0) {
    integer(name, low, high, binds).op_.arguments.back().field = offset(field);
    op_.arguments.back().store_integer = kStore<T>;
    return *this;
  }
  /// Known as a letter only.
  Declare& integer(const char* name, std::int64_t low, std::int64_t high, char binds) {
    Argument& a = value(Argument::Kind::kInteger, name);
    a.low = low;
    a.high = high;
    a.binds = binds;
    return *this;
  }
  Declare& at_most(const char* size) {
    op_.arguments.back().highest = Shape(size);
    return *this;
  }
  template <class C, class T>
  Declare& number(const char* name, double least, double most, T C::* field, char binds = 0) {
    Argument& a = value(Argument::Kind::kNumber, name);
    a.least = least;
    a.most = most;
    a.binds = binds;
    a.field = offset(field);
    a.store_number = kStore<T>;
    return *this;
  }
  Declare& or_none() {
    op_.arguments.back().optional = true;
    return *this;
  }
  template <class C>
  Declare& flag(const char* name, bool C::* field) {
    value(Argument::Kind::kFlag, name).field = offset(field);
    return *this;
  }
  template <class C, class Enum, std::size_t kCount>
  Declare& choice(const char* name, const char* const (&names)[kCount], Enum C::* field) {
    integer(name, 0, kCount - 1, field).op_.arguments.back().choices.assign(names, names + kCount);
    op_.arguments.back().kind = Argument::Kind::kChoice;
    return *this;
  }
  /// Fields that hold the elements of a shape: "B", "P+1", "C ...".
  Declare& counts(
      std::initializer_list<std::pair<const char*, std::int64_t Record::*>> shapes_and_fields) {
    for (const auto& [shape, field] : shapes_and_fields) {
      op_.counts.emplace_back(offset(field), Shape(shape));
    }
    return *this;
  }

  /// Of a record: fills in fields that no argument does; refuses values, on the CPU, with a
  /// std::invalid_argument; runs the kernels; says bytes of workspace on a GPU.
  Declare& prepare(std::function<void(Record&)> f) { return with(op_.prepare, f); }
  Declare& check(std::function<void(const Record&)> f) { return with(op_.check, f); }
  Declare& cpu(std::function<void(const Record&)> f) { return with(op_.cpu, f); }
  Declare& workspace(std::function<std::int64_t(const Record&)> f) {
    return with(op_.workspace, f);
  }
  Declare& cuda(std::function<void(const Record&, void*, const cuda::Queue&)> f) {
    return with(op_.cuda, f);
  }
  Declare& cuda(std::function<void(const Record&, const cuda::Queue&)> f) {
    return cuda([f](const Record& r, void*, const cuda::Queue& queue) { f(r, queue); });
  }

  operator Op() const {
    return op_.arguments.size() <= kMostArguments ? op_ : throw std::logic_error(op_.name);
  }

 private:
  template <class Slot, class F>
  Declare& with(Slot& slot, F f) {
    slot = [f](void* record, auto&&... more) { return f(*static_cast<Record*>(record), more...); };
    return *this;
  }
  template <class C, class T>
  static std::size_t offset(T C::* field) {
    static Record record{};
    return static_cast<std::size_t>(reinterpret_cast<char*>(&(record.*field)) -
                                    reinterpret_cast<char*>(&record));
  }
  template <class C, class T>
  Argument described(const char* name, const char* shape, T* C::* field, const char* group) {
    Argument a;
    a.name = name;
    a.shape = Shape(shape);
    a.field = offset(field);
    a.type = type_of<std::remove_const_t<T>>();
    a.written = !std::is_const_v<T>;
    a.optional = group != nullptr;
    a.group = group == nullptr ? "" : group;
    return a;
  }
  Argument& value(Argument::Kind kind, const char* name) {
    Argument& a = op_.arguments.emplace_back();
    a.kind = kind;
    a.name = name;
    return a;
  }

  Op op_;
};

/// All of them, in one order.
const std::vector<Op>& ops();

}  // namespace free_dit
