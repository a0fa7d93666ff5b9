// SPDX-License-Identifier: Apache-2.0
// The contract of an op: what it takes and gives, said once (drafting.cpp, verification.cpp).
//
// Each argument is a name ("scale?" may be None), a shape or a range, and the field of the kernels'
// record that it fills; the field's type says the dtype, and whether the kernel writes there.
// Checks, the words of errors, allocation and marshalling follow from that (call.cpp), and in
// Python the schema and the results where sizes are symbols (free/ops/contract.py).
//
// A shape is a list of axes: "B W ..." has letters for sizes. The first argument that has a letter
// binds it, and the others are compared: "W-1", "B*K", a number, "V>=W" (at least W). "..." stands
// for one axis or more, "...?" for any number. "> 0" at the end says that no axis is empty.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
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
  std::vector<Axis> axes;
  int rest = -1;  // how many others there are, at least; -1 for none
  bool filled = false;

  Shape() = default;
  explicit Shape(const std::string& text);
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

constexpr std::int64_t kAny = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kWord = std::numeric_limits<std::uint32_t>::max();

struct Argument {
  enum class Kind { kTensor, kInteger, kNumber, kFlag, kChoice };
  Kind kind = Kind::kTensor;
  std::string name;
  PyObject* key = nullptr;  // the name, as Python interns it
  std::size_t field = 0;    // its offset in the record
  bool optional = false;

  // A tensor.
  Type type = Type::kFloating;
  bool written = false;  // in place, or as a result
  Shape shape;
  std::string group;           // optional ones of a group are all there, or none
  std::size_t type_field = 0;  // of networks' answers, where the record has their type

  // A value.
  char binds = 0;  // this letter is its value; of an optional one, 2 with it and 1 without
  std::int64_t low = 0, high = kAny;
  Shape highest;                   // an integer's upper limit where that depends on sizes
  double least = 0.0, most = 0.0;  // a number's
  std::vector<const char*> choices;
  void (*store_integer)(void* field, std::int64_t value) = [](void*, std::int64_t) {};
  void (*store_number)(void* field, double value) = nullptr;
};

/// What a call holds of its arguments and its record.
constexpr std::size_t kMostArguments = 16;
constexpr std::size_t kMostBytes = 512;

struct Op {
  std::string name;
  std::vector<Argument> arguments;
  std::vector<Argument> results;
  std::vector<std::pair<std::size_t, Shape>> counts;  // fields that hold sizes
  std::size_t record_size = 0;

  // What is done with a record; workspace says bytes.
  std::function<void(void*)> init, prepare = [](void*) {}, check = [](void*) {}, cpu;
  std::function<std::int64_t(void*)> workspace;
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
  Declare& tensor(const char* name, const char* shape, T* C::* field, const char* group = "") {
    describe(op_.arguments, name, shape, field, group);
    return *this;
  }
  /// In a type that networks answer in.
  template <class C>
  Declare& answers(const char* name, const char* shape, const void* C::* field, Float C::* type) {
    describe(op_.arguments, name, shape, field, "").type_field = offset(type);
    return *this;
  }
  /// Left out, as an empty tensor, where its group is None.
  template <class C, class T>
  Declare& result(const char* name, const char* shape, T* C::* field, const char* group = "") {
    describe(op_.results, name, shape, field, group);
    return *this;
  }

  /// Up to a number, or sizes: "W-1". It `binds` a letter, and may be known as that only.
  Declare& integer(const char* name, std::int64_t low, std::variant<std::int64_t, const char*> high,
                   char binds) {
    Argument& a = add(op_.arguments, Argument::Kind::kInteger, name);
    a.low = low;
    a.binds = binds;
    if (const auto* const sizes = std::get_if<const char*>(&high)) {
      a.highest = Shape(*sizes);
    } else {
      a.high = std::get<std::int64_t>(high);
    }
    return *this;
  }
  template <class C, class T>
  Declare& integer(const char* name, std::int64_t low, std::variant<std::int64_t, const char*> high,
                   T C::* field, char binds = 0) {
    integer(name, low, high, binds).op_.arguments.back().field = offset(field);
    op_.arguments.back().store_integer = kStore<T>;
    return *this;
  }
  template <class C, class T>
  Declare& number(const char* name, double least, double most, T C::* field, char binds = 0) {
    Argument& a = add(op_.arguments, Argument::Kind::kNumber, name, offset(field));
    a.least = least;
    a.most = most;
    a.binds = binds;
    a.store_number = kStore<T>;
    return *this;
  }
  template <class C>
  Declare& flag(const char* name, bool C::* field) {
    add(op_.arguments, Argument::Kind::kFlag, name, offset(field));
    return *this;
  }
  template <class C, class Enum, std::size_t kCount>
  Declare& choice(const char* name, const char* const (&names)[kCount], Enum C::* field) {
    Argument& a = add(op_.arguments, Argument::Kind::kChoice, name, offset(field));
    a.choices.assign(names, names + kCount);
    a.store_integer = kStore<Enum>;
    return *this;
  }
  /// Fields that hold sizes, word by word: "B P+1", and "..." for the product of the others.
  template <class... C>
  Declare& counts(const char* sizes, std::int64_t C::*... fields) {
    std::istringstream words(sizes);
    std::string word;
    ((words >> word, op_.counts.emplace_back(offset(fields), Shape(word))), ...);
    return *this;
  }

  /// Fills in fields of the record that no argument does.
  Declare& prepare(std::function<void(Record&)> f) { return with(op_.prepare, f); }
  /// Refuses values, on the CPU, with a std::invalid_argument.
  Declare& check(std::function<void(const Record&)> f) { return with(op_.check, f); }
  /// What runs: on the CPU, and on a GPU with so many bytes of workspace.
  Declare& kernels(std::function<void(const Record&)> cpu,
                   std::function<void(const Record&, void*, const cuda::Queue&)> gpu,
                   std::function<std::int64_t(const Record&)> workspace) {
    return with(op_.cpu, cpu).with(op_.cuda, gpu).with(op_.workspace, workspace);
  }
  Declare& kernels(std::function<void(const Record&)> cpu,
                   std::function<void(const Record&, const cuda::Queue&)> gpu) {
    const auto run = [gpu](const Record& r, void*, const cuda::Queue& queue) { gpu(r, queue); };
    return kernels(cpu, run, [](const Record&) { return 0; });
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
  static Argument& add(std::vector<Argument>& to, Argument::Kind kind, std::string name,
                       std::size_t field = 0) {
    Argument& a = to.emplace_back();
    a.kind = kind;
    a.field = field;
    a.optional = name.back() == '?';
    a.name = name.substr(0, name.size() - (a.optional ? 1 : 0));
    a.key = PyUnicode_InternFromString(a.name.c_str());
    return a;
  }
  template <class C, class T>
  static Argument& describe(std::vector<Argument>& to, const char* name, const char* shape,
                            T* C::* field, const char* group) {
    Argument& a = add(to, Argument::Kind::kTensor, name, offset(field));
    a.shape = Shape(shape);
    a.type = type_of<std::remove_const_t<T>>();
    a.written = !std::is_const_v<T>;
    a.group = group;
    return a;
  }

  Op op_;
};

/// Those that make a window.
std::vector<Op> drafting_ops();
/// All of them, in one order.
const std::vector<Op>& ops();

}  // namespace free_dit
