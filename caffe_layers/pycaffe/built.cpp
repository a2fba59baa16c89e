// Objects whose __init__ has not run, for example if a subclass uses itself before super().__init__(), would give
// access to uninitialised memory. Also their support for the garbage collector.

#include "pycaffe.hpp"

namespace pycaffe {

void* ValueOf(PyObject* object) {
  return reinterpret_cast<py::detail::instance*>(object)->get_value_and_holder().value_ptr();
}

namespace {

// Whether a class attribute is a C++ function or property that accesses the object.
bool LooksInside(PyObject* attribute) {
  if (PyInstanceMethod_Check(attribute)) return true;
  if (!PyObject_TypeCheck(attribute, &PyProperty_Type)) return false;
  const py::object getter = py::getattr(attribute, "fget");
  return PyInstanceMethod_Check(getter.ptr()) || PyCFunction_Check(getter.ptr());
}

PyObject* GetAttribute(PyObject* self, PyObject* name) {
  if (ValueOf(self) == nullptr) {
    PyObject* attribute = _PyType_Lookup(Py_TYPE(self), name);
    const std::string text = py::str(name);
    if (attribute != nullptr && text.substr(0, 2) != "__" && LooksInside(attribute)) {
      PyErr_Format(PyExc_TypeError, "%s.__init__() has not run: call super().__init__(...) before self.%s",
                   Py_TYPE(self)->tp_name, text.c_str());
      return nullptr;
    }
  }
  return PyObject_GenericGetAttr(self, name);
}

int Traverse(PyObject* self, visitproc visit, void* arg) { return VisitAttributes(self, &Traverse, visit, arg); }

}  // namespace

int VisitAttributes(PyObject* self, traverseproc own, visitproc visit, void* arg) {
#if PY_VERSION_HEX >= 0x030B0000 && PY_VERSION_HEX < 0x030C0000
  if (Py_TYPE(self)->tp_traverse != own) {
    Py_VISIT(Py_TYPE(self));
    return 0;
  }
#endif
  return py::detail::pybind11_traverse(self, visit, arg);
}

py::custom_type_setup Built(traverseproc traverse) {
  return py::custom_type_setup([traverse](PyHeapTypeObject* type) {
    type->ht_type.tp_getattro = &GetAttribute;
    if (PyType_HasFeature(&type->ht_type, Py_TPFLAGS_HAVE_GC)) {
      type->ht_type.tp_traverse = traverse != nullptr ? traverse : &Traverse;
    }
  });
}

}  // namespace pycaffe
